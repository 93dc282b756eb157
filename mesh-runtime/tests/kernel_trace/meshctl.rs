//! The same as a person asks it.

use serde_json::Value;

use crate::{
    pair::meshctl::output,
    scene::{Scene, nft},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_says_what_becomes_of_the_packet_and_the_text_why() {
    let scene = Scene::start(&["--fast-path", "off"]).await;
    let (a, b) = (scene.pair.a.address(), scene.pair.b.address());
    let said = |words: &str, code: i32| {
        let output = output(scene.a(), words);
        assert_eq!(output.status.code(), Some(code), "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let words = format!("trace {a} {b} --proto tcp --port 80");
    let text = said(&words, 0);
    let last = format!(
        "passes here, by the kernel path; {} decides its part\n",
        scene.b().name()
    );
    assert!(text.ends_with(&last), "{text}");
    assert!(text.contains(&format!("there: meshctl {words}")), "{text}");
    assert!(text.contains("proto 81 table main"), "{text}");
    let document: Value = serde_json::from_str(&said(&format!("{words} --json"), 0)).unwrap();
    assert_eq!(document["verdict"], "passes");
    assert_eq!(document["path"], "kernel");
    assert_eq!(
        document["hops"].as_array().unwrap().last().unwrap()["verdict"],
        "elsewhere"
    );

    let text = said(&format!("trace {a} {b} --size 1451"), 1);
    assert!(text.ends_with("is dropped here\n"), "{text}");
    nft(
        scene.a().netns(),
        "add table ip f; add chain ip f c { type filter hook forward priority 0; policy drop; }",
    );
    let text = said(&words, 2);
    assert!(text.contains("not evaluated"), "{text}");
    assert!(text.contains("table ip f, chain c"), "{text}");

    let unknown = output(scene.a(), "trace 10.42.1.2 host2");
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(said.contains("\"host2\" is not an IPv4 address"), "{said}");
}
