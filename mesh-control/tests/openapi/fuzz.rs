//! Requests made from the description, thousands of them, right and wrong: is every answer in it?

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::process::Setup;
use crate::schemathesis;

/// How many requests are made of each kind for each call. More find more: set `QUILT_MESH_FUZZ_EXAMPLES`.
const EXAMPLES: &str = "40";

/// Ten times what it takes. Only a failing test waits for it.
const DEADLINE: Duration = Duration::from_secs(600);

/// Not whether every request that fits the description is accepted: the rules that it cannot express (an address
/// that is no loopback, `wait` only with `since`) are told with a 400 or 422, which the description names.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance,negative_data_rejection,unsupported_method,allow_header_conformance,\
    ensure_resource_availability";

fn chosen(variable: &str, default: impl FnOnce() -> String) -> String {
    std::env::var(variable).unwrap_or_else(|_| default())
}

/// What counts as refusing what does not fit the description: also that a body is too large, which one is whose text is too
/// long, and that there were too many of its kind.
const REFUSALS: &str = "[checks.negative_data_rejection]\n\
    expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, \"5xx\"]\n";

/// The calls that need credentials at every stage.
const OF_OPERATORS: &str =
    "^/api/(tokens|audit|node-credentials|operators|security|ca/|renew)|/revoke$";

/// Has requests made of some of the calls, and what of them is not as described said.
fn fuzz(address: SocketAddr, more: &[&str]) {
    let program = schemathesis::program();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hooks.py"), include_str!("hooks.py")).unwrap();
    std::fs::write(folder.path().join("schemathesis.toml"), REFUSALS).unwrap();
    let seed = chosen("QUILT_MESH_FUZZ_SEED", || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_secs().to_string()
    });
    println!("to repeat this run: QUILT_MESH_FUZZ_SEED={seed}");

    let mut command = Command::new(program);
    command
        .current_dir(folder.path())
        .env("PYTHONPATH", folder.path())
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("NO_PROXY", "*")
        .env("NO_COLOR", "1")
        .arg("run")
        .arg(format!("http://{address}/api/openapi.json"))
        .args(["--checks", CHECKS, "--seed", &seed, "--max-examples"])
        .arg(chosen("QUILT_MESH_FUZZ_EXAMPLES", || EXAMPLES.to_owned()))
        // How fast this machine makes requests is not the question.
        .args(["--suppress-health-check", "all", "--request-timeout", "60"])
        .args([
            "--continue-on-failure",
            "--no-shrink",
            "--output-sanitize",
            "false",
        ])
        .args(more);
    let (status, said) = schemathesis::finish(command, folder.path(), DEADLINE);
    println!("{said}");
    assert!(
        status.success(),
        "schemathesis has findings, above; QUILT_MESH_FUZZ_SEED={seed} repeats them"
    );
}

#[tokio::test]
async fn no_request_made_from_the_description_is_answered_with_500_or_outside_of_it() {
    let setup = Setup::new();
    let control_plane = setup.start();
    fuzz(
        control_plane.address(),
        &["--exclude-path-regex", OF_OPERATORS],
    );
    assert!(control_plane.stop().success());

    // It got past the front door: a node was registered. It may have been released again (seed 1795912597 ends so),
    // but a subnet that was ever handed out keeps its row.
    let leases: i64 = sqlx::query_scalar("SELECT count(*) FROM leases")
        .fetch_one(&mut setup.database().await)
        .await
        .unwrap();
    assert!(leases > 0, "no request registered a node");
}

/// As an operator: without credentials nothing of it is answered but refusals.
#[test]
fn no_request_of_an_operator_is_answered_with_500_or_outside_of_the_description() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let made = Command::new(env!("CARGO_BIN_EXE_quilt-mesh-control"))
        .args([
            "operator",
            "create",
            "ada",
            "--role",
            "operate",
            "--state-dir",
        ])
        .arg(setup.folder())
        .output()
        .unwrap();
    let token = String::from_utf8(made.stdout).unwrap();
    let authorization = format!("Authorization: Bearer {}", token.trim());
    fuzz(
        control_plane.address(),
        &["--include-path-regex", OF_OPERATORS, "-H", &authorization],
    );
    assert!(control_plane.stop().success());
}

/// A port of loopback that leads to a Unix socket, which the program that makes the requests knows nothing of. It is
/// there until the test ends.
fn leads_to(socket: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for caller in listener.incoming() {
            let (caller, socket) = (caller.unwrap(), socket.clone());
            thread::spawn(move || carry(&caller, &socket));
        }
    });
    address
}

/// Carries what each side says to the other until both have ended.
fn carry(caller: &TcpStream, socket: &Path) -> io::Result<()> {
    let called = UnixStream::connect(socket)?;
    thread::scope(|scope| {
        scope.spawn(|| {
            let there = io::copy(&mut &*caller, &mut &called);
            // Whoever sends no more may still wait for an answer.
            called.shutdown(std::net::Shutdown::Write).and(there)
        });
        let back = io::copy(&mut &called, &mut &*caller);
        caller.shutdown(std::net::Shutdown::Both).and(back)
    })?;
    Ok(())
}

/// Everything that is done on the control plane's own host alone, with all that goes with it, on the socket where it is
/// done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_over_the_admin_socket_is_answered_with_500_or_outside_of_the_description() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let address = leads_to(setup.folder().join("admin.sock"));
    tokio::task::block_in_place(|| fuzz(address, &["--include-path-regex", OF_OPERATORS]));
    assert!(control_plane.stop().success());

    // It got past the front door: an operator was made, which is done there alone.
    let operators: i64 = sqlx::query_scalar("SELECT count(*) FROM operators")
        .fetch_one(&mut setup.database().await)
        .await
        .unwrap();
    assert!(operators > 0, "no request made an operator");
}
