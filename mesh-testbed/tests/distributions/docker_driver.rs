//! Containers of another distribution's Docker on a network of `quilt-docker`.

use mesh_testbed::{Distribution, Engine, Host};

use crate::{docker_life, mesh::needed};

pub(crate) async fn docker(host: &Host) -> Engine {
    let distribution = needed(Distribution::chosen());
    needed(Engine::docker_over_quilt_docker_of(&distribution, host).await)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn containers_of_docker_over_quilt_docker_reach_each_other_by_the_fast_path_and_leave_nothing()
 {
    docker_life::reach_each_other_and_leave_nothing(docker).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn ports_of_docker_over_quilt_docker_are_reached_from_everywhere_by_clients_that_keep_their_address()
 {
    docker_life::ports_are_reached(docker).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn a_container_of_dockers_joins_the_mesh_while_it_runs_and_leaves_it_again() {
    docker_life::join_and_leave(docker).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn containers_of_dockers_come_back_with_daemon_driver_runtime_and_host() {
    docker_life::come_back(docker).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn without_a_runtime_docker_says_what_to_do_and_stops_containers_all_the_same() {
    docker_life::without_a_runtime(docker).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn a_daemon_that_starts_before_the_driver_goes_on_and_finds_it_later() {
    docker_life::before_the_driver(docker).await;
}
