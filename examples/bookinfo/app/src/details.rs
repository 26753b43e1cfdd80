//! `details`: what is known about a book.

use serde_json::json;

use crate::server::{Request, Response};

/// `/details/{id}` and `/health`.
pub fn serve(request: &Request) -> Response {
    if request.path == "/health" {
        return Response::json(200, &json!({ "status": "Details is healthy" }));
    }
    let Some(Ok(id)) = request.path.strip_prefix("/details/").map(str::parse::<u64>) else {
        return Response::not_found();
    };
    Response::json(
        200,
        &json!({
            "id": id,
            "author": "William Shakespeare",
            "year": 1595,
            "type": "paperback",
            "pages": 200,
            "publisher": "PublisherA",
            "language": "English",
            "ISBN-10": "1234567890",
            "ISBN-13": "123-1234567890",
        }),
    )
}
