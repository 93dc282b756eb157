//! The admin socket: whose it is, and what may be there before.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_control::http::admin_socket::{self, AdminSocket, AdminSocketError};
use mesh_rest::security::Stage;
use tokio::net::UnixStream;

use super::client::{Connection, request, with_json};
use super::server::Server;

async fn ask(path: &Path, request: &str) -> super::client::Answer {
    let stream = UnixStream::connect(path).await.unwrap();
    Connection::new(stream).ask(request).await
}

fn serve(server: &Server) -> PathBuf {
    let path = server.folder.path().join("admin.sock");
    let socket = AdminSocket::bind(&path).unwrap();
    let grace = Duration::from_secs(1);
    tokio::spawn(admin_socket::serve(socket, Arc::clone(&server.site), grace));
    path
}

#[tokio::test]
async fn whoever_opens_the_admin_socket_may_everything_in_a_secured_cluster() {
    let server = Server::start(Stage::Secured).await;
    server.node("a", 0);
    let path = serve(&server);
    let found = std::fs::symlink_metadata(&path).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert_eq!(
        ask(&path, &request("GET", "/api/nodes", "")).await.status,
        200
    );
    let reserve = serde_json::json!({"cidr": "10.42.7.0/24"});
    let reserve = with_json("POST", "/api/subnets/reserve", "", &reserve);
    let answer = ask(&path, &reserve).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    // No name is wrong, and what there is not is answered as such.
    let foreign = "GET /nowhere HTTP/1.1\r\nHost: anything.example\r\n\r\n";
    assert_eq!(ask(&path, foreign).await.status, 404);
}

#[tokio::test]
async fn another_user_is_not_served_even_where_the_mode_lets_it_connect() {
    let server = Server::start(Stage::Secured).await;
    let path = serve(&server);
    std::fs::set_permissions(server.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                  s.sendall(b'GET /health HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); print(s.recv(100))";
    let mut seen = Vec::new();
    for user in [0, 65_534] {
        let mut command = std::process::Command::new("python3");
        command.args(["-c", script]).arg(&path).uid(user).gid(user);
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.unwrap().unwrap();
        seen.push(String::from_utf8_lossy(&output.stdout).contains("200 OK"));
    }
    assert_eq!(seen, [true, false]);
}

#[tokio::test]
async fn a_socket_that_was_left_is_replaced_and_one_that_answers_is_not() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("admin.sock");
    let first = AdminSocket::bind(&path).unwrap();
    assert!(matches!(
        AdminSocket::bind(&path),
        Err(AdminSocketError::InUse(_))
    ));
    assert!(UnixStream::connect(&path).await.is_ok());
    drop(first);
    assert!(!path.exists());
    // Of a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(UnixStream::connect(&path).await.is_err());
    let second = AdminSocket::bind(&path).unwrap();
    assert!(UnixStream::connect(&path).await.is_ok());
    drop(second);
    // Of another program.
    let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(matches!(
        AdminSocket::bind(&path),
        Err(AdminSocketError::InUse(_))
    ));
    drop(other);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "a file of somebody").unwrap();
    assert!(matches!(
        AdminSocket::bind(&path),
        Err(AdminSocketError::NoSocket(_))
    ));
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "a file of somebody"
    );
}
