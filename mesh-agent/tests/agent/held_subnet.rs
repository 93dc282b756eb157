//! A node says which subnet it holds, so that a control plane without a memory leaves it there.

use serde_json::{Value, json};

use crate::{
    fake_control_plane::FakeControlPlane,
    fake_runtime::{FakeRuntime, subnet},
    process::Agent,
};

/// What each registration so far said about the subnet.
fn said(control: &FakeControlPlane) -> Vec<Value> {
    let registrations = control.state().registrations.clone();
    registrations
        .into_iter()
        .map(|r| r["subnet"].clone())
        .collect()
}

fn configured(runtime: &FakeRuntime, n: u8) -> bool {
    runtime.state().subnet == subnet(n)
}

#[test]
fn a_node_that_a_wiped_control_plane_forgot_says_which_subnet_it_holds() {
    for runtime in [FakeRuntime::start(), FakeRuntime::with_three_calls()] {
        let control = FakeControlPlane::start();
        control.state().lease = 7;
        let agent = Agent::start(&control, &runtime, &[]);
        agent.until("its subnet", || configured(&runtime, 7));
        control.wipe();
        agent.until("a second registration", || control.registrations() >= 2);
        assert_eq!(said(&control)[..2], [Value::Null, json!(subnet(7))]);
    }
}

#[test]
fn a_restarted_agent_says_which_subnet_its_runtime_holds() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.state().lease = 7;
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("its subnet", || configured(&runtime, 7));
    drop(agent);
    control.wipe();
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("a registration", || control.registrations() >= 2);
    assert_eq!(said(&control)[1], json!(subnet(7)));
}

#[test]
fn what_the_containers_use_counts_and_not_what_was_leased_since() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("its subnet", || configured(&runtime, 1));
    runtime.state().refuse_subnets.insert(subnet(9));
    control.state().lease = 9;
    control.wipe();
    agent.until_logged("does not take the node's subnet");
    control.wipe();
    agent.until("a third registration", || control.registrations() >= 3);
    assert_eq!(said(&control)[2], json!(subnet(1)));
}

#[test]
fn a_runtime_that_hangs_does_not_keep_a_node_from_registering() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    runtime.state().hangs = true;
    let agent = Agent::start(&control, &runtime, &["--request-timeout", "1h"]);
    agent.until("a registration", || control.registrations() >= 1);
    assert_eq!(said(&control), [Value::Null]);
}
