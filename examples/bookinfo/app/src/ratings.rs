//! `ratings`: how many stars each reviewer gives.

use serde_json::json;

use crate::server::{Request, Response};

/// `/ratings/{id}` and `/health`.
pub fn serve(request: &Request) -> Response {
    if request.path == "/health" {
        return Response::json(200, &json!({ "status": "Ratings is healthy" }));
    }
    let Some(Ok(id)) = request.path.strip_prefix("/ratings/").map(str::parse::<u64>) else {
        return Response::not_found();
    };
    Response::json(200, &json!({ "id": id, "ratings": { "Reviewer1": 5, "Reviewer2": 4 } }))
}
