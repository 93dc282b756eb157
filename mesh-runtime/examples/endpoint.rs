//! What a container runtime does to say which container is behind an interface:
//! `endpoint attach INTERFACE [ADDRESS [MAC]]`, `endpoint detach INTERFACE`.

use anyhow::{Context as _, bail};
use mesh_proto::mesh::{
    AttachEndpointRequest, DetachEndpointRequest, mesh_dataplane_client::MeshDataplaneClient,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |at: usize| words.get(at).cloned().unwrap_or_default();
    let mut runtime = MeshDataplaneClient::connect("http://127.0.0.1:50051")
        .await
        .context("no quilt-runtime at 127.0.0.1:50051")?;
    match word(0).as_str() {
        "attach" => {
            let request = AttachEndpointRequest {
                interface: word(1),
                address: word(2),
                mac: word(3),
                ..AttachEndpointRequest::default()
            };
            let answer = runtime.attach_endpoint(request).await?.into_inner();
            match answer.endpoint {
                Some(it) => println!("{} {} behind {}", it.address, it.mac, it.interface),
                None => bail!(answer.error),
            }
        }
        "detach" => {
            let request = DetachEndpointRequest {
                interface: word(1),
                address: word(2),
                ..DetachEndpointRequest::default()
            };
            let answer = runtime.detach_endpoint(request).await?.into_inner();
            if !answer.success {
                bail!(answer.error);
            }
        }
        _ => bail!("attach INTERFACE [ADDRESS [MAC]], or detach INTERFACE [ADDRESS]"),
    }
    Ok(())
}
