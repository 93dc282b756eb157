//! A mesh whose nodes have no credentials is secured.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use mesh_testbed::{DaemonOptions, Signal, Testbed};

use crate::mesh::{DEADLINE, Mesh, replace, subnets};

/// What the control plane answers to whoever asks for the nodes over plain HTTP.
fn plainly_asked(testbed: &Testbed) -> String {
    let address = testbed.control().address();
    let ask = move || {
        let mut stream = TcpStream::connect((address, 8080))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let request =
            format!("GET /api/nodes HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    testbed.hosts()[0].netns().run(ask).unwrap().unwrap()
}

#[tokio::test]
async fn a_mesh_from_before_is_secured_node_by_node_without_losing_a_packet() {
    let plain = DaemonOptions::new().plain();
    let mesh = Mesh::start(3, &plain, &plain).await;
    let (control, hosts) = (mesh.control(), &mesh.hosts()[..3]);
    control.told(&["secure", "--undo"]).unwrap();
    let before = subnets(&control.nodes().await.unwrap());

    control.told(&["secure"]).unwrap();
    for host in hosts {
        let said = control.told(&["secure", "--finish"]).unwrap_err();
        assert!(said.to_string().contains(host.name()), "{said}");
        // It has no certificate, so that it is given a token.
        replace(host, &DaemonOptions::new()).await;
    }
    assert_eq!(subnets(&control.nodes().await.unwrap()), before);
    let said = control.told(&["secure", "--finish"]).unwrap();
    assert!(said.contains("secured"), "{said}");
    // And from then on nothing but TLS.
    control.stop(Signal::SIGTERM, DEADLINE).await.unwrap();
    control.start(&DaemonOptions::new()).await.unwrap();
    let answer = plainly_asked(&mesh.testbed);
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    assert_eq!(subnets(&control.nodes().await.unwrap()), before);
    // Their certificates are enough: without the token, each comes back.
    for host in hosts {
        replace(host, &DaemonOptions::new()).await;
    }
    mesh.lost_nothing().await;
}
