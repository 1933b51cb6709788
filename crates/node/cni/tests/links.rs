//! Pods and nodes in real network namespaces that the test makes; needs root, touches nothing outside them.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tiphys_cni::node::{ClusterNetwork, Neighbour};
use tiphys_cni::pod::PodLinks;
use tiphys_cni::rtnl::{Netlink, in_namespace};
use tiphys_cni::sysctl::Recorded;
use tiphys_cni::{Cidr, NetError};

/// A new network namespace, alive as long as the descriptor.
fn namespace() -> OwnedFd {
    std::thread::spawn(|| {
        #[expect(deprecated, reason = "its unsafe successor differs only for FILES")]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).expect("root can unshare");
        OwnedFd::from(File::open("/proc/thread-self/ns/net").expect("own namespace"))
    })
    .join()
    .expect("thread")
}

fn cidr(text: &str) -> Cidr {
    text.parse().expect("range")
}

fn cluster() -> ClusterNetwork {
    ClusterNetwork { bridge: "typtest".into(), nodes: cidr("10.89.0.0/24"), pods: cidr("10.244.0.0/16"), services: cidr("10.96.0.0/16") }
}

fn listen(netns: &OwnedFd, at: Ipv4Addr) -> UdpSocket {
    let socket = in_namespace(netns.as_fd(), || Ok(UdpSocket::bind((at, 7000)).expect("own address"))).expect("entered");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
    socket
}

fn send(netns: &OwnedFd, to: Ipv4Addr, what: &str) -> std::io::Result<()> {
    in_namespace(netns.as_fd(), || Ok(UdpSocket::bind("0.0.0.0:0").and_then(|s| s.send_to(what.as_bytes(), (to, 7000)).map(|_| ()))))
        .expect("entered")
}

/// From which address packets come, of which the first may be lost: the kernel brings links up in its own time. `what` is said by nobody else.
fn heard(socket: &UdpSocket, from: &OwnedFd, to: Ipv4Addr, what: &str) -> String {
    const TRIES: u32 = 20;
    let mut buffer = [0; 32];
    for _ in 0..TRIES {
        send(from, to, what).expect(what);
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            if &buffer[..len] == what.as_bytes() {
                return from.ip().to_string();
            }
        }
    }
    panic!("{what}: no packet came");
}

#[test]
fn pods_of_two_nodes_reach_each_other_and_leave_nothing() {
    let (host, second, pod1, pod2) = (namespace(), namespace(), namespace(), namespace());
    let network = cluster();
    let (ip1, ip2): (Ipv4Addr, Ipv4Addr) = ("10.244.1.2".parse().expect("ip"), "10.244.2.2".parse().expect("ip"));
    let links = |node: u32| PodLinks { prefix: "tp".into(), mtu: 1500, node: network.node_address(node).expect("room") };
    let mut recorded = Recorded::default();
    let on_host = || {
        network.set_up_host(&mut recorded)?;
        network.set_up_host(&mut recorded)?; // a second time changes nothing
        network.connect_node(2, &second)?;
        network.set_routes("typtest", &[Neighbour { address: "10.89.0.2".parse().expect("ip"), pods: cidr("10.244.2.0/24") }], &[])?;
        links(1).set_up(pod1.as_fd(), ip1)
    };
    in_namespace(host.as_fd(), on_host).expect("host");
    in_namespace(second.as_fd(), || {
        network.set_routes("eth0", &[Neighbour { address: "10.89.0.1".parse().expect("ip"), pods: cidr("10.244.1.0/24") }], &[])?;
        links(2).set_up(pod2.as_fd(), ip2)
    })
    .expect("second node");
    let (socket1, socket2) = (listen(&pod1, ip1), listen(&pod2, ip2));
    assert_eq!(heard(&socket2, &pod1, ip2, "pod to pod"), ip1.to_string());
    assert_eq!(heard(&socket2, &host, ip2, "host to the other node's pod"), "10.89.0.1");
    assert_eq!(heard(&socket1, &host, ip1, "host to its own pod"), "10.89.0.1");
    let unknown = send(&host, "10.244.77.7".parse().expect("ip"), "nobody").expect_err("an unknown pod is refused");
    assert!(matches!(unknown.kind(), std::io::ErrorKind::HostUnreachable | std::io::ErrorKind::NetworkUnreachable), "{unknown}");
    in_namespace(host.as_fd(), || {
        links(1).tear_down(ip1)?;
        links(1).tear_down(ip1)?; // twice is fine
        network.tear_down_host(&recorded)?;
        network.tear_down_host(&recorded)
    })
    .expect("torn down");
    drop((socket1, socket2));
    let left = in_namespace(host.as_fd(), || -> Result<_, NetError> {
        let mut netlink = Netlink::open()?;
        let names: Vec<String> = netlink.links()?.into_iter().map(|l| l.name).filter(|n| n.starts_with('t')).collect();
        let routes: Vec<String> = netlink.routes()?.iter().map(|r| r.to.to_string()).filter(|r| r.starts_with("10.")).collect();
        Ok((names, routes))
    });
    assert_eq!(left.expect("listed"), (vec![], vec![]));
}

#[test]
fn an_error_says_what_was_tried() {
    let host = namespace();
    let refused =
        in_namespace(host.as_fd(), || Netlink::open()?.send(&[tiphys_cni::rtnl::delete_link("nothere")])).expect_err("no such link");
    assert_eq!(refused.to_string(), "deleting the link nothere");
}
