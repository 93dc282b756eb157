//! Tests of the command line.

use super::*;

fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
    let mut line = vec![
        "quilt-mesh-agent",
        "--control-plane",
        "http://192.0.2.10:8080",
    ];
    line.extend_from_slice(arguments);
    Options::try_parse_from(line)
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let options = parse(&[]).unwrap();
    assert_eq!(options.runtime.quilt_runtime, None);
    let place = options.runtime.place().unwrap().to_string();
    assert_eq!(place, "/run/quilt-mesh/runtime.sock or 127.0.0.1:50051");
    assert_eq!(options.heartbeat_interval, None);
    assert_eq!(options.sync_interval, Duration::from_secs(5));
    assert_eq!(options.request_timeout, Duration::from_secs(5));
    // The second time that a lost SYN is sent again is 3 s after the first.
    assert_eq!(options.connect_timeout, Duration::from_secs(4));
    assert_eq!(options.probe_timeout, Duration::from_secs(1));
    assert_eq!(options.probe_attempts, 3);
    assert!(!options.stay_registered);
    assert_eq!(options.overlay_interface, "vxlan100");
    assert_eq!(
        options.state_dir,
        PathBuf::from("/var/lib/quilt-mesh-agent")
    );
}

#[test]
fn the_runtimes_socket_is_written_with_one_slash_or_three() {
    for url in ["unix:/run/quilt.sock", "unix:///run/quilt.sock"] {
        let options = parse(&["--quilt-runtime", url]).unwrap();
        let socket = RuntimeUrl::Unix("/run/quilt.sock".into());
        assert_eq!(options.runtime.quilt_runtime, Some(socket));
    }
}

#[test]
fn a_runtime_with_tls_has_the_name_of_its_url_and_needs_three_files() {
    for (url, place, host) in [
        ("https://192.0.2.1:50051", "192.0.2.1:50051", "192.0.2.1"),
        (
            "https://[2001:db8::1]:50051",
            "[2001:db8::1]:50051",
            "2001:db8::1",
        ),
        (
            "https://node1.example",
            "node1.example:443",
            "node1.example",
        ),
    ] {
        let options = parse(&["--quilt-runtime", url]).unwrap();
        let Some(RuntimeUrl::Https { authority, name }) = &options.runtime.quilt_runtime else {
            panic!("{options:?}");
        };
        assert_eq!((authority.as_str(), name.to_str().as_ref()), (place, host));
        let error = options.runtime.place().unwrap_err().to_string();
        assert!(error.contains("--runtime-tls-cert"), "{error}");
    }
    let files = ["--runtime-tls-ca", "file"];
    let error = parse(&files).unwrap().runtime.place().unwrap_err();
    assert!(error.to_string().contains("https://"), "{error}");
}

#[test]
fn every_option_has_an_environment_variable() {
    use clap::CommandFactory as _;
    for argument in Options::command().get_arguments() {
        let long = argument.get_long().unwrap();
        let name = match long {
            // The runtime's socket has the name that would follow.
            "socket" => "QUILT_MESH_AGENT_SOCKET".to_owned(),
            _ => format!("QUILT_MESH_{}", long.to_uppercase().replace('-', "_")),
        };
        assert_eq!(argument.get_env().unwrap(), name.as_str());
    }
}

#[test]
fn the_socket_is_a_path_or_off() {
    let socket = |arguments: &[&str]| parse(arguments).map(|options| options.socket);
    let default = AgentSocket::At("/run/quilt-mesh-agent/agent.sock".into());
    assert_eq!(socket(&[]).unwrap(), default);
    let given = socket(&["--socket", "/run/mine.sock"]).unwrap();
    assert_eq!(given, AgentSocket::At("/run/mine.sock".into()));
    assert_eq!(socket(&["--socket", "off"]).unwrap(), AgentSocket::Off);
    assert!(socket(&["--socket", ""]).is_err());
}

#[test]
fn the_control_plane_may_have_several_replicas() {
    let urls = [
        "http://192.0.2.10:8080/",
        "http://192.0.2.11:8080/",
        "http://192.0.2.12:8080/",
    ];
    let list = format!("{},{}", urls[1], urls[2]);
    let options = parse(&["--control-plane", &list]).unwrap();
    let given: Vec<_> = options.control_plane.iter().map(Url::as_str).collect();
    assert_eq!(given, urls);
    assert!(
        Options::try_parse_from(["quilt-mesh-agent"]).is_err(),
        "at least one"
    );
}

#[test]
fn a_wrong_value_is_refused_with_the_rule() {
    for (option, value, rule) in [
        ("--control-plane", "192.0.2.10:8080", "http"),
        ("--control-plane", "ftp://192.0.2.10", "https"),
        ("--control-plane", "http://", "empty host"),
        ("--control-plane", "http://a:b@192.0.2.10", "passwords"),
        ("--control-plane", "http://192.0.2.10/?x=1", "query"),
        ("--quilt-runtime", "unix:run/quilt.sock", "an absolute path"),
        ("--quilt-runtime", "https://a:b@192.0.2.10", "passwords"),
        ("--quilt-runtime", "https://", "empty host"),
        ("--host-ip", "node1", "not an IPv4 address"),
        ("--host-ip", "2001:db8::1", "not an IPv4 address"),
        ("--host-ip", "0.0.0.0", "cannot be a destination"),
        ("--host-ip", "224.0.0.1", "multicast"),
        ("--host-ip", "255.255.255.255", "broadcast"),
        ("--hostname", "", "1 to 253 bytes"),
        ("--hostname", "a\nb", "control characters"),
        ("--overlay-interface", "sixteen-letters-", "1 to 15 bytes"),
        ("--overlay-interface", "../x", "without '/'"),
        ("--heartbeat-interval", "0", "at least 10ms"),
        ("--probe-timeout", "11s", "at most 10s"),
        ("--probe-attempts", "0", "1..=100"),
        ("--sync-interval", "soon", "not a time"),
        ("--sync-interval", "10 s", "not a time"),
        ("--sync-interval", "18446744073709551615h", "at most 24h"),
        ("--log-level", "loud", "write error, warn, info"),
    ] {
        let mut line = vec!["quilt-mesh-agent"];
        if option != "--control-plane" {
            line.extend(["--control-plane", "http://192.0.2.10:8080"]);
        }
        line.extend([option, value]);
        let error = Options::try_parse_from(line).unwrap_err().to_string();
        assert!(error.contains(rule), "{option} {value:?}: {error}");
    }
}

#[test]
fn no_join_token_is_repeated_in_an_error_or_a_debug_line() {
    let secret = "qm1.nothing.but.nonsense";
    let options = parse(&["--join", secret]).unwrap();
    assert!(!format!("{options:?}").contains(secret), "{options:?}");
    let error = options.settings().unwrap_err().to_string();
    assert!(error.contains("over TLS"), "{error}");
    let state = tempfile::tempdir().unwrap();
    let state = state.path().to_str().unwrap();
    let settings = |arguments: &[&str]| {
        let mut line = vec![
            "quilt-mesh-agent",
            "--control-plane",
            "https://192.0.2.10",
            "--state-dir",
            state,
        ];
        line.extend_from_slice(arguments);
        Options::try_parse_from(line).unwrap().settings()
    };
    let error = settings(&["--join", secret]).unwrap_err();
    let text = format!("{error:#} {error:?}");
    assert!(text.contains("--join") && !text.contains(secret), "{text}");
    // An empty variable is none.
    let error = settings(&["--join", ""]).unwrap_err().to_string();
    assert!(error.contains("--join TOKEN"), "{error}");
}

#[test]
fn what_tls_is_spoken_with_is_given_in_full_or_not_at_all() {
    for wrong in [
        &["--tls-cert", "a", "--tls-key", "b"][..],
        &["--tls-cert", "a", "--tls-ca", "b"],
        &["--tls-key", "a"],
        &["--join", "a", "--join-file", "b"],
        &[
            "--join",
            "a",
            "--tls-cert",
            "a",
            "--tls-key",
            "b",
            "--tls-ca",
            "c",
        ],
    ] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
    let mixed = "https://192.0.2.10,http://192.0.2.11";
    let options = Options::try_parse_from(["quilt-mesh-agent", "--control-plane", mixed]).unwrap();
    let error = options.settings().unwrap_err().to_string();
    assert!(error.contains("either all"), "{error}");
}
