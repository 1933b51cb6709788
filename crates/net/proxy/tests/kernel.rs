//! The rules in a real kernel, in a network namespace that the test makes: accepted, and they do what they say.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use tiphys_netfilter::{Change, Fake, Nft, Ruleset, diff};
use tiphys_proxy::{Affinity, Endpoint, NodeConfig, Place, Port, Protocol, Range, ServicePort, ruleset};

/// Stands in for a pod: an address of the namespace's own loopback.
const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 5);

fn enter_new_namespace() {
    #[expect(deprecated, reason = "its unsafe successor differs only for FILES")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).expect("root can unshare");
    let network = tiphys_cni::node::ClusterNetwork {
        bridge: "typtest".into(),
        nodes: "10.89.0.0/24".parse().expect("range"),
        pods: "10.244.0.0/16".parse().expect("range"),
        services: "10.96.0.0/16".parse().expect("range"),
    };
    network.set_up_host(&mut tiphys_cni::sysctl::Recorded::default()).expect("node network");
    let mut netlink = tiphys_cni::rtnl::Netlink::open().expect("netlink");
    netlink.send(&[tiphys_cni::rtnl::add_address(1, POD, 32)]).expect("address");
}

fn range(address: [u8; 4], prefix: u8) -> Range {
    Range { address: address.into(), prefix }
}

fn node() -> NodeConfig {
    NodeConfig {
        name: "n1".into(),
        pods: range([10, 244, 0, 0], 16),
        services: range([10, 96, 0, 0], 16),
        nodes: range([10, 89, 0, 0], 24),
    }
}

fn service(name: &str, ip: u8, endpoints: &[u16]) -> ServicePort {
    let endpoints: std::collections::BTreeSet<Endpoint> = endpoints.iter().map(|port| Endpoint { address: POD, port: *port }).collect();
    ServicePort {
        id: format!("default/{name}/tcp/"),
        port: Port { protocol: Protocol::Tcp, number: 80 },
        cluster_ip: Ipv4Addr::new(10, 96, 0, ip),
        external_ips: vec![],
        source_ranges: vec![],
        load_balancer_ips: vec![],
        node_port: Some(30000 + u16::from(ip)),
        affinity: None,
        internal_local: false,
        external_local: false,
        local: endpoints.clone(),
        anywhere: !endpoints.is_empty(),
        endpoints,
    }
}

fn table(services: &[ServicePort]) -> Ruleset {
    let map: BTreeMap<String, ServicePort> = services.iter().map(|s| (s.id.clone(), s.clone())).collect();
    ruleset(&map, &node(), &Place::default())
}

/// A server that says its port to everyone.
fn serve() -> u16 {
    let listener = TcpListener::bind((POD, 0)).expect("bound");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut s| s.write_all(port.to_string().as_bytes()));
        }
    });
    port
}

fn ask(to: (Ipv4Addr, u16)) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&to.into(), Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.parse().expect("a port"))
}

#[test]
fn connections_follow_the_services() {
    enter_new_namespace();
    let (a, b) = (serve(), serve());
    let mut sticky = service("sticky", 3, &[a, b]);
    sticky.affinity = Some(Affinity { timeout_seconds: 60 });
    let first = table(&[service("web", 1, &[a, b]), service("none", 2, &[]), sticky]);
    let mut nft = Nft::open("tiphys-test").expect("socket");
    let mut fake = Fake::default();
    let mut step = |changes: Vec<Change>| {
        fake.apply(&changes).expect("the fake takes it");
        nft.apply(&changes).expect("the kernel takes it");
    };
    let mut changes = vec![Change::AddTable];
    changes.extend(diff(&Ruleset::default(), &first));
    step(changes);
    let web = (Ipv4Addr::new(10, 96, 0, 1), 80);
    let seen: std::collections::BTreeSet<u16> = (0..40).map(|_| ask(web).expect("answered")).collect();
    assert_eq!(seen, [a, b].into(), "both endpoints are used");
    assert!(seen.contains(&ask((Ipv4Addr::new(10, 89, 0, 1), 30001)).expect("node port on an address of the node")));
    let refused = ask((Ipv4Addr::new(10, 96, 0, 2), 80)).expect_err("no endpoints");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    ask((Ipv4Addr::new(10, 96, 0, 77), 80)).expect_err("no such service");
    let same: std::collections::BTreeSet<u16> = (0..20).map(|_| ask((Ipv4Addr::new(10, 96, 0, 3), 80)).expect("answered")).collect();
    assert_eq!(same.len(), 1, "a client stays at its endpoint");
    let second = table(&[service("web", 1, &[b]), service("none", 2, &[a])]);
    step(diff(&first, &second));
    assert!((0..20).all(|_| ask(web).expect("answered") == b), "the other endpoint is gone");
    assert_eq!(ask((Ipv4Addr::new(10, 96, 0, 2), 80)).expect("has an endpoint now"), a);
    step(diff(&second, &table(&[])));
    nft.delete_table().expect("deleted");
    nft.delete_table().expect("twice is fine");
}

#[test]
fn five_thousand_services_fit_one_transaction() {
    enter_new_namespace();
    let many: Vec<ServicePort> = (0..5000u16)
        .map(|i| {
            let mut s = service(&format!("s{i}"), 1, &[80, 81, 82]);
            s.cluster_ip = Ipv4Addr::from(0x0a60_0000 + u32::from(i) + 1);
            s.node_port = None;
            s
        })
        .collect();
    let mut changes = vec![Change::AddTable];
    changes.extend(diff(&Ruleset::default(), &table(&many)));
    Nft::open("tiphys-many").expect("socket").apply(&changes).expect("taken");
}

#[test]
fn a_refused_change_is_named_and_nothing_happens() {
    enter_new_namespace();
    let mut nft = Nft::open("tiphys-refused").expect("socket");
    let error = nft.apply(&[Change::AddTable, Change::FlushChain { name: "nothere".into() }]).expect_err("refused");
    assert!(error.to_string().contains("nothere"), "{error}");
}

/// Traffic from outside may use only the node's own endpoints; the node's own pods and processes may use any.
#[test]
fn local_policy_is_for_what_comes_from_outside() {
    use tiphys_netfilter::HookPoint;
    use tiphys_netfilter::trace::{Outcome, Packet, trace};
    let far = Endpoint { address: Ipv4Addr::new(10, 244, 1, 9), port: 80 };
    let mut local = service("local", 4, &[]);
    local.external_local = true;
    local.endpoints = [far].into();
    local.anywhere = true;
    let place = Place { own_pods: Some(range([10, 244, 0, 0], 24)), ..Place::default() };
    let rules = ruleset(&BTreeMap::from([(local.id.clone(), local.clone())]), &node(), &place);
    let packet = |source: [u8; 4], from_local| Packet {
        source: source.into(),
        destination: Ipv4Addr::new(10, 89, 0, 1),
        protocol: 6,
        port: 30004,
        input: String::new(),
        output: String::new(),
        to_local: true,
        from_local,
        mark: 0,
        dice: 0,
        ct_state: 8,
        ct_status: 0,
    };
    let dnat = Outcome::Dnat(far.address, far.port);
    assert_eq!(trace(&rules, HookPoint::Prerouting, &mut packet([10, 244, 0, 7], false)), dnat, "own pod");
    let mut own = packet([10, 89, 0, 1], true);
    assert_eq!(trace(&rules, HookPoint::Output, &mut own), dnat, "own process");
    assert_eq!(own.mark, 0x4000);
    let mut outside = packet([192, 0, 2, 1], false);
    assert_eq!(trace(&rules, HookPoint::Prerouting, &mut outside), Outcome::Accepted, "not translated");
    assert_eq!(trace(&rules, HookPoint::Input, &mut outside), Outcome::Dropped, "another node has the endpoint");
    local.anywhere = false;
    local.endpoints.clear();
    let rules = ruleset(&BTreeMap::from([(local.id.clone(), local)]), &node(), &place);
    assert_eq!(trace(&rules, HookPoint::Input, &mut outside), Outcome::Rejected, "nobody has one");
}
