//! Interfaces of others whose names are numbers, which a port of our bridge may have as its index.

use std::net::Ipv4Addr;

use mesh_testbed::{NetNs, wait_until};

use crate::{
    conversation::Server,
    inside::ip,
    pair::SOON,
    scene::{ALIVE, Plan, in_modes},
    tables::{listed, nft, own_rules},
    web::{Web, port},
};

/// More than ports are made in a test.
const NAMES: u32 = 20;

/// Makes bridges that are called as the interfaces after them will be numbered.
fn name_by_numbers(netns: &NetNs) {
    ip(netns, "link add name before type bridge");
    let shown = ip(netns, "-o link show before");
    let first: u32 = shown.split(':').next().unwrap().parse().unwrap();
    for number in 1..=NAMES {
        let name = first + NAMES + number;
        ip(netns, &format!("link add name {name} type bridge"));
    }
    // No interface has this number, and "from no interface" is said by it.
    ip(netns, "link add name 0 type bridge");
}

async fn is_reached(web: &Web, from: &NetNs, to: Ipv4Addr) {
    Server::on(web.netns(), 80).sees(from, to, 8080).await;
}

/// The rules once each port has its program: until then they list it, and refuse more of it.
async fn at_rest(netns: &NetNs) -> Vec<Vec<String>> {
    wait_until("the rules at rest", SOON, || async {
        let rules = own_rules(netns).ok_or("a table is missing")?;
        let bridge = listed(netns, "bridge quilt_mesh").unwrap_or_default();
        let (_, bare) = bridge.split_once("set bare {").ok_or("no set of ports")?;
        let (bare, _) = bare.split_once("\n\t}").ok_or("a set without an end")?;
        match bare.contains("elements") || own_rules(netns).as_ref() != Some(&rules) {
            true => Err(bare.to_owned()),
            false => Ok(rules),
        }
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_whose_name_is_the_number_of_a_port_keeps_no_container_from_its_guards() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let (home, stranger) = (scene.home(), scene.pair.stranger());
        name_by_numbers(home.netns());
        let web = Web::attach(home, &[port("tcp", 8080, 80, 1)]).await;
        is_reached(&web, stranger.netns(), home.address()).await;
        let rules = at_rest(home.netns()).await;
        // Also where the tables are written whole.
        nft(home.netns(), "flush ruleset");
        wait_until("the rules", SOON, || async {
            let again = own_rules(home.netns()).ok_or("a table is missing")?;
            let difference = || {
                let lacks = |one: &[Vec<String>], other: &[Vec<String>]| -> Vec<String> {
                    let other = other.concat();
                    let words = one.concat().into_iter();
                    words.filter(|word| !other.contains(word)).collect()
                };
                let (missing, new) = (lacks(&rules, &again), lacks(&again, &rules));
                format!("missing {missing:?}, new {new:?}, or as often")
            };
            (again == rules).then_some(()).ok_or_else(difference)
        })
        .await
        .unwrap();
        is_reached(&web, stranger.netns(), home.address()).await;
        let again = Web::attach(home, &[port("tcp", 8081, 80, 1)]).await;
        again.detach(home).await;
        assert_eq!(home.status().await.unwrap().problems(), [""; 0]);
    })
    .await;
}
