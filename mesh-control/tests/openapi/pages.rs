//! The description as it is served, and the page that shows it.

use reqwest::Method;
use serde_json::Value;

use crate::answer::{Answer, Api};
use crate::process::Setup;

#[tokio::test]
async fn the_description_is_served_as_it_is_generated() {
    let control_plane = Setup::new().start();
    let served =
        Answer::to(Api::of(&control_plane).request(Method::GET, "/api/openapi.json")).await;
    let generated = serde_json::to_value(mesh_control::api::openapi::document()).unwrap();
    assert_eq!(served.status, 200);
    assert_eq!(served.body, generated);
    assert!(served.body["openapi"].as_str().unwrap().starts_with("3.1"));
}

/// What a page loads: the values of its `src` and `href`.
fn links(page: &str) -> Vec<&str> {
    ["src=\"", "href=\""]
        .iter()
        .flat_map(|attribute| page.split(attribute).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .collect()
}

#[tokio::test]
async fn the_page_and_all_it_loads_come_from_the_control_plane() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    // The client follows the redirection to /api/docs/.
    let page = api.request(Method::GET, "/api/docs").send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert_eq!(page.url().path(), "/api/docs/");
    assert_eq!(page.headers()["content-type"], "text/html");
    let page = page.text().await.unwrap();
    let links = links(&page);
    assert!(links.len() >= 5, "{page}");
    for link in links {
        assert!(!link.contains("//"), "{link} is on another host");
        let path = format!("/api/docs/{}", link.trim_start_matches("./"));
        let file = api.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(file.status(), 200, "{path}");
        assert!(!file.bytes().await.unwrap().is_empty(), "{path}");
    }
    let initializer = api.request(Method::GET, "/api/docs/swagger-initializer.js");
    let initializer = initializer.send().await.unwrap().text().await.unwrap();
    assert!(initializer.contains("../openapi.json"), "{initializer}");
    assert!(!initializer.contains("http"), "{initializer}");
}

#[tokio::test]
async fn a_file_that_the_page_does_not_have_is_404() {
    let control_plane = Setup::new().start();
    let answer =
        Answer::to(Api::of(&control_plane).request(Method::GET, "/api/docs/other.js")).await;
    answer.problem(404, "no-such-route");
    assert!(matches!(answer.body, Value::Object(_)));
}
