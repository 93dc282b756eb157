//! What the process says of itself.

use reqwest::Method;
use serde_json::json;

use crate::answer::{Answer, Api};
use crate::process::Setup;

#[tokio::test]
async fn livez_and_readyz_are_ok_where_the_database_answers() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    for path in ["/livez", "/readyz"] {
        let answer = Answer::to(api.request(Method::GET, path)).await;
        assert_eq!(
            (answer.status, answer.body),
            (200, json!({"status": "ok"})),
            "{path}"
        );
    }
}
