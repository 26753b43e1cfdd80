//! `reviews`: what readers say, with the stars of `ratings` from version v2 on.

use serde_json::{Value, json};

use crate::client::Client;
use crate::server::{Request, Response};
use crate::stars;

const REVIEWS: [(&str, &str); 2] = [
    (
        "Reviewer1",
        "Twins, shipwrecks, and a town full of people sure they have met you before. I laughed out loud.",
    ),
    (
        "Reviewer2",
        "The shortest of the plays, and the best argument for name tags ever put on a stage.",
    ),
];

/// `/reviews/{id}` and `/health`.
pub fn serve(client: &Client, version: &str, request: &Request) -> Response {
    if request.path == "/health" {
        return Response::json(200, &json!({ "status": "Reviews is healthy" }));
    }
    let Some(Ok(id)) = request.path.strip_prefix("/reviews/").map(str::parse::<u64>) else {
        return Response::not_found();
    };
    let ratings = stars::colour(version).map(|colour| {
        let answer = client.get(request, "ratings:9080", &format!("/ratings/{id}"));
        (colour, answer.inspect_err(|error| eprintln!("ratings: {error:#}")))
    });
    let reviews: Vec<Value> = REVIEWS
        .iter()
        .map(|(reviewer, text)| {
            let mut review = json!({ "reviewer": reviewer, "text": text });
            match &ratings {
                Some((colour, Ok(answer))) => {
                    review["rating"] =
                        json!({ "stars": answer["ratings"][reviewer], "color": colour });
                }
                Some((_, Err(_))) => {
                    review["rating"] =
                        json!({ "error": "Ratings service is currently unavailable" })
                }
                None => {}
            }
            review
        })
        .collect();
    Response::json(200, &json!({ "id": id.to_string(), "version": version, "reviews": reviews }))
}
