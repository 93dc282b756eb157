//! What the commands say to an operator who errs, or may not know what comes next.

use std::fs::File;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::answer::Api;
use crate::joining::{Host, tell, token, told};
use crate::process::Setup;

fn said(setup: &Setup, words: &[&str]) -> String {
    let output = tell(setup, words);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn refused(setup: &Setup, words: &[&str], parts: &[&str]) {
    let error = told(setup, words).unwrap_err();
    for part in parts {
        assert!(error.contains(part), "{words:?}: {part:?} in {error}");
    }
}

#[tokio::test]
async fn a_step_of_a_rotation_out_of_turn_names_the_one_that_comes_next() {
    let setup = Setup::new();
    let control = setup.start();
    let mut host = Host::join(&control, &token(&setup, &[])).await;
    host.register(&control, "alpha", "192.0.2.1").await;
    let rotate = |step| ["ca", "rotate", step];
    for step in ["activate", "finish"] {
        refused(&setup, &rotate(step), &["no rotation", "ca rotate prepare"]);
    }
    told(&setup, &rotate("prepare")).unwrap();
    for step in ["prepare", "finish"] {
        let parts = ["does not sign yet", "quilt-mesh-control ca rotate activate"];
        refused(&setup, &rotate(step), &parts);
    }
    refused(&setup, &rotate("activate"), &["1 node that is up does not"]);
    assert_eq!(host.renew(&control).await.status, 200);
    told(&setup, &rotate("activate")).unwrap();
    for step in ["prepare", "activate"] {
        let parts = ["signs already", "quilt-mesh-control ca rotate finish"];
        refused(&setup, &rotate(step), &parts);
    }
    let parts = ["1 node still has a certificate", "alpha", "token create"];
    refused(&setup, &rotate("finish"), &parts);
    assert_eq!(host.renew(&control).await.status, 200);
    told(&setup, &rotate("finish")).unwrap();
}

#[tokio::test]
async fn a_cluster_that_is_secured_is_not_opened_by_the_command_that_secures() {
    let setup = Setup::new();
    let control = setup.start();
    let host = Host::join(&control, &token(&setup, &[])).await;
    host.register(&control, "alpha", "192.0.2.1").await;
    let parts = ["secured already", "security", "secure --undo"];
    refused(&setup, &["secure"], &parts);
    let plain = Api::of(&control);
    let list = plain.request(reqwest::Method::GET, "/api/nodes");
    assert_eq!(crate::answer::Answer::to(list).await.status, 401);
    let security = told(&setup, &["security"]).unwrap();
    assert!(security.contains("secured: nobody"), "{security}");
    // Who wants it says so, and then it is secured as any other from before.
    told(&setup, &["secure", "--finish"]).unwrap();
    for step in [&["secure", "--undo"][..], &["secure"], &["secure"]] {
        told(&setup, step).unwrap();
    }
    told(&setup, &["secure", "--finish"]).unwrap();
    refused(&setup, &["secure"], &parts);
}

#[tokio::test]
async fn a_token_for_a_name_that_no_node_has_says_that_it_makes_a_new_one() {
    let setup = Setup::new();
    let control = setup.start();
    let host = Host::join(&control, &token(&setup, &[])).await;
    host.register(&control, "host3", "192.0.2.3").await;
    let wrong = said(&setup, &["token", "create", "--node", "hots3"]);
    assert!(
        wrong.contains("no node is called \"hots3\"") && wrong.contains("a new node of that name"),
        "{wrong}"
    );
    for right in ["host3", host.node_id()] {
        assert_eq!(said(&setup, &["token", "create", "--node", right]), "");
    }
}

#[tokio::test]
async fn a_token_of_an_authority_that_does_not_sign_any_more_is_listed_as_worthless() {
    let setup = Setup::new();
    let _control = setup.start();
    let of = |id: &str| {
        let list = told(&setup, &["token", "list"]).unwrap();
        let line = list.lines().find(|line| line.contains(id)).unwrap();
        line.to_owned()
    };
    let before = token(&setup, &["--ttl", "48h"]);
    told(&setup, &["ca", "rotate", "prepare"]).unwrap();
    assert!(!of(&before.id).contains("worthless"));
    for step in ["activate", "finish"] {
        told(&setup, &["ca", "rotate", step]).unwrap();
        assert!(of(&before.id).contains("worthless"), "{}", of(&before.id));
    }
    let after = token(&setup, &[]);
    assert!(!of(&after.id).contains("worthless"));
}

#[tokio::test]
async fn an_operator_is_revoked_by_name_or_id_and_no_two_have_one_name() {
    let setup = Setup::new();
    let control = setup.start();
    let made = told(&setup, &["operator", "create", "ada"]).unwrap();
    // Who is not said to change anything may look.
    let release = json!({"subnet": "10.42.1.0/24"});
    let plain = Api::of(&control);
    let answer = plain
        .post("/api/subnets/release")
        .bearer_auth(made.trim())
        .json(&release);
    assert_eq!(crate::answer::Answer::to(answer).await.status, 403);
    let id = made.split('.').nth(1).unwrap().to_owned();
    let parts = ["ada", &id, "operator revoke"];
    refused(&setup, &["operator", "create", "ada"], &parts);
    told(&setup, &["operator", "revoke", "ada"]).unwrap();
    let again = said(&setup, &["operator", "revoke", "ada"]);
    assert!(again.contains("revoked already"), "{again}");
    let words = ["operator", "create", "ada", "--role", "operate"];
    let second = told(&setup, &words).unwrap();
    let id = second.split('.').nth(1).unwrap();
    told(&setup, &["operator", "revoke", id]).unwrap();
    let none = ["no operator is called \"eve\"", "operator list"];
    refused(&setup, &["operator", "revoke", "eve"], &none);
}

#[tokio::test]
async fn a_node_that_is_revoked_already_is_said_to_be() {
    let setup = Setup::new();
    let control = setup.start();
    let host = Host::join(&control, &token(&setup, &[])).await;
    host.register(&control, "alpha", "192.0.2.1").await;
    assert_eq!(said(&setup, &["node", "revoke", "alpha"]), "");
    for name in ["alpha", host.node_id()] {
        let again = said(&setup, &["node", "revoke", name]);
        assert!(again.contains("revoked already"), "{again}");
    }
    assert_eq!(host.beat(&control).await.status, 401);
}

#[test]
fn what_cannot_be_printed_is_an_error_and_who_reads_no_further_is_none() {
    let setup = Setup::new();
    let _control = setup.start();
    let run = |words: &[&str], out: Stdio| {
        let output = Command::new(env!("CARGO_BIN_EXE_quilt-mesh-control"))
            .args(words)
            .arg("--state-dir")
            .arg(setup.folder())
            .stdout(out)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("panicked"), "{said}");
        (output.status.code(), said)
    };
    let full = || Stdio::from(File::create("/dev/full").unwrap());
    for words in [
        &["token", "create"][..],
        &["node", "list"],
        &["ca", "export"],
        &["security"],
    ] {
        let (code, said) = run(words, full());
        assert_eq!(code, Some(1), "{words:?}");
        assert!(
            said.contains("cannot print it") && said.contains("No space left"),
            "{said}"
        );
    }
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    assert_eq!(run(&["token", "list"], closed()), (Some(0), String::new()));
    let (code, said) = run(&["ca", "export"], closed());
    assert_eq!(code, Some(1), "{said}");
}
