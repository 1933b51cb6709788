//! A question to its answer, purely.

use std::net::Ipv4Addr;
use std::str::FromStr;

use hickory_proto::rr::rdata::{A, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Seconds that a resolver may keep an answer: short, since endpoints move.
const TTL: u32 = 5;

/// What the answers are made of.
pub trait Zone {
    /// The Service, if there is one.
    fn service(&self, namespace: &str, name: &str) -> Option<Service>;
    /// Whether there is anything in the namespace, so that its name exists.
    fn has_namespace(&self, namespace: &str) -> bool;
    /// Who has the address: Services by cluster IP, and endpoints of headless Services.
    fn by_address(&self, address: Ipv4Addr) -> Vec<String>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    Address { ip: Ipv4Addr, ports: Vec<Port> },
    Headless { endpoints: Vec<Endpoint>, ports: Vec<Port> },
    External(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    pub number: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod's hostname, or its address with dashes.
    pub host: String,
    pub ip: Ipv4Addr,
    /// The endpoint's own port numbers, by port name.
    pub ports: Vec<Port>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The records, which may be none: the name exists, but has nothing of this type.
    Records {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    NoSuchName,
    /// The name stands for another, whose records of the asked type belong to the answer: resolvers in pods do not ask again for them (RFC 1034, 3.6.2).
    Alias {
        record: Box<Record>,
        target: String,
    },
    /// Not in the cluster's zone.
    NotOurs,
}

/// Answers one question. `domain` is the cluster's, such as `cluster.local`; `name` is in lower case, without the last dot.
pub fn answer(zone: &dyn Zone, domain: &str, name: &str, kind: RecordType) -> Answer {
    if let Some(address) = reverse(name) {
        return pointer(zone, name, address, kind, domain);
    }
    let Some(rest) = name.strip_suffix(domain).and_then(|r| if r.is_empty() { Some("") } else { r.strip_suffix('.') }) else {
        return Answer::NotOurs;
    };
    let labels: Vec<&str> = rest.split('.').filter(|l| !l.is_empty()).collect();
    let at = At { zone, domain, name, kind };
    match labels.as_slice() {
        [] => at.nothing(),
        ["dns-version"] => at.only(RecordType::TXT, || RData::TXT(TXT::new(vec!["1.1.0".into()]))),
        [.., "svc"] => at.service(labels.get(..labels.len() - 1).unwrap_or(&[])),
        [host, namespace, "pod"] => at.pod(host, namespace),
        ["pod"] => at.nothing(),
        [namespace, "pod"] if zone.has_namespace(namespace) => at.nothing(),
        _ => Answer::NoSuchName,
    }
}

/// `4.3.2.1.in-addr.arpa` → 1.2.3.4.
fn reverse(name: &str) -> Option<Ipv4Addr> {
    let digits = name.strip_suffix(".in-addr.arpa")?;
    let [d, c, b, a] = Ipv4Addr::from_str(digits).ok()?.octets();
    Some(Ipv4Addr::new(a, b, c, d))
}

fn pointer(zone: &dyn Zone, name: &str, address: Ipv4Addr, kind: RecordType, domain: &str) -> Answer {
    let targets = zone.by_address(address);
    if targets.is_empty() {
        return Answer::NotOurs;
    }
    let records = targets.iter().filter_map(|t| record(name, RData::PTR(PTR(full(&format!("{t}.svc.{domain}"))?))));
    Answer::Records { answers: if kind == RecordType::PTR { records.collect() } else { vec![] }, additionals: vec![] }
}

fn full(name: &str) -> Option<Name> {
    Name::from_str_relaxed(format!("{}.", name.trim_end_matches('.'))).ok()
}

fn record(name: &str, data: RData) -> Option<Record> {
    Some(Record::from_rdata(full(name)?, TTL, data))
}

/// The start of authority that comes with answers without records (RFC 2308).
pub(crate) fn authority(domain: &str) -> Option<Record> {
    let soa = SOA::new(full(&format!("ns.dns.{domain}"))?, full(&format!("hostmaster.{domain}"))?, 1, 7200, 1800, 86_400, TTL);
    record(domain, RData::SOA(soa))
}

struct At<'a> {
    zone: &'a dyn Zone,
    domain: &'a str,
    name: &'a str,
    kind: RecordType,
}

impl At<'_> {
    fn nothing(&self) -> Answer {
        Answer::Records { answers: vec![], additionals: vec![] }
    }

    fn only(&self, kind: RecordType, data: impl Fn() -> RData) -> Answer {
        let answers = if self.kind == kind { record(self.name, data()).into_iter().collect() } else { vec![] };
        Answer::Records { answers, additionals: vec![] }
    }

    fn addresses(&self, ips: impl Iterator<Item = Ipv4Addr>) -> Answer {
        let answers = if self.kind == RecordType::A { ips.filter_map(|ip| record(self.name, RData::A(A(ip)))).collect() } else { vec![] };
        Answer::Records { answers, additionals: vec![] }
    }

    fn pod(&self, host: &str, namespace: &str) -> Answer {
        match Ipv4Addr::from_str(&host.replace('-', ".")) {
            Ok(ip) if self.zone.has_namespace(namespace) => self.addresses([ip].into_iter()),
            _ => Answer::NoSuchName,
        }
    }

    /// `labels` stand before `svc`.
    fn service(&self, labels: &[&str]) -> Answer {
        match labels {
            [] => self.nothing(),
            [namespace] => {
                if self.zone.has_namespace(namespace) {
                    self.nothing()
                } else {
                    Answer::NoSuchName
                }
            }
            [name, namespace] => match self.zone.service(namespace, name) {
                None => Answer::NoSuchName,
                Some(Service::External(target)) => self.alias(&target),
                Some(Service::Address { ip, ports }) => {
                    if self.kind == RecordType::SRV {
                        self.named_ports(name, namespace, &ports, None)
                    } else {
                        self.addresses([ip].into_iter())
                    }
                }
                Some(Service::Headless { endpoints, .. }) if endpoints.is_empty() => Answer::NoSuchName,
                Some(Service::Headless { endpoints, .. }) => self.addresses(endpoints.iter().map(|e| e.ip)),
            },
            [port, protocol, name, namespace] if port.starts_with('_') && protocol.starts_with('_') => {
                self.port(port.trim_start_matches('_'), protocol.trim_start_matches('_'), name, namespace)
            }
            [host, name, namespace] => match self.zone.service(namespace, name) {
                Some(Service::Headless { endpoints, .. }) if endpoints.iter().any(|e| e.host == *host) => {
                    self.addresses(endpoints.iter().filter(|e| e.host == *host).map(|e| e.ip))
                }
                _ => Answer::NoSuchName,
            },
            _ => Answer::NoSuchName,
        }
    }

    fn alias(&self, target: &str) -> Answer {
        let Some(record) = full(target).and_then(|t| record(self.name, RData::CNAME(CNAME(t)))) else { return self.nothing() };
        if self.kind == RecordType::CNAME {
            return Answer::Records { answers: vec![record], additionals: vec![] };
        }
        Answer::Alias { record: Box::new(record), target: target.trim_end_matches('.').to_ascii_lowercase() }
    }

    fn port(&self, port: &str, protocol: &str, name: &str, namespace: &str) -> Answer {
        let wanted = Some((port, protocol));
        match self.zone.service(namespace, name) {
            Some(Service::Address { ports, .. }) => self.named_ports(name, namespace, &ports, wanted),
            Some(Service::Headless { endpoints, .. }) => self.endpoint_ports(name, namespace, &endpoints, wanted),
            _ => Answer::NoSuchName,
        }
    }

    fn named_ports(&self, name: &str, namespace: &str, ports: &[Port], wanted: Option<(&str, &str)>) -> Answer {
        let target = format!("{name}.{namespace}.svc.{}", self.domain);
        let matching: Vec<&Port> = ports.iter().filter(|p| wanted.is_none_or(|(n, proto)| p.name == n && p.protocol == proto)).collect();
        if matching.is_empty() {
            return Answer::NoSuchName;
        }
        let srv = |p: &&Port| record(self.name, RData::SRV(SRV::new(0, 100, p.number, full(&target)?)));
        let answers = if self.kind == RecordType::SRV { matching.iter().filter_map(srv).collect() } else { vec![] };
        let address = match self.zone.service(namespace, name) {
            Some(Service::Address { ip, .. }) if !answers.is_empty() => record(&target, RData::A(A(ip))),
            _ => None,
        };
        Answer::Records { answers, additionals: address.into_iter().collect() }
    }

    fn endpoint_ports(&self, name: &str, namespace: &str, endpoints: &[Endpoint], wanted: Option<(&str, &str)>) -> Answer {
        let (mut answers, mut additionals) = (vec![], vec![]);
        for endpoint in endpoints {
            let target = format!("{}.{name}.{namespace}.svc.{}", endpoint.host, self.domain);
            for port in endpoint.ports.iter().filter(|p| wanted.is_none_or(|(n, proto)| p.name == n && p.protocol == proto)) {
                answers.extend(full(&target).and_then(|t| record(self.name, RData::SRV(SRV::new(0, 100, port.number, t)))));
                additionals.extend(record(&target, RData::A(A(endpoint.ip))));
            }
        }
        if answers.is_empty() {
            return Answer::NoSuchName;
        }
        if self.kind == RecordType::SRV { Answer::Records { answers, additionals } } else { self.nothing() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    fn port(name: &str, number: u16) -> Port {
        Port { name: name.into(), protocol: "tcp".into(), number }
    }

    impl Zone for Fixed {
        fn service(&self, namespace: &str, name: &str) -> Option<Service> {
            let endpoint =
                |host: &str, last: u8| Endpoint { host: host.into(), ip: Ipv4Addr::new(10, 244, 0, last), ports: vec![port("http", 8080)] };
            match (namespace, name) {
                ("default", "web") => Some(Service::Address { ip: Ipv4Addr::new(10, 96, 0, 7), ports: vec![port("http", 80)] }),
                ("default", "db") => {
                    Some(Service::Headless { endpoints: vec![endpoint("db-0", 2), endpoint("10-244-0-3", 3)], ports: vec![] })
                }
                ("default", "empty") => Some(Service::Headless { endpoints: vec![], ports: vec![] }),
                ("default", "out") => Some(Service::External("example.com".into())),
                _ => None,
            }
        }

        fn has_namespace(&self, namespace: &str) -> bool {
            namespace == "default"
        }

        fn by_address(&self, address: Ipv4Addr) -> Vec<String> {
            if address == Ipv4Addr::new(10, 96, 0, 7) { vec!["web.default".into()] } else { vec![] }
        }
    }

    fn ask(name: &str, kind: RecordType) -> String {
        match answer(&Fixed, "cluster.local", name, kind) {
            Answer::Records { answers, .. } => answers.iter().map(|r| r.data.to_string()).collect::<Vec<_>>().join(" | "),
            Answer::NoSuchName => "NXDOMAIN".into(),
            Answer::Alias { record, target } => format!("{} then {target}", record.data),
            Answer::NotOurs => "forward".into(),
        }
    }

    #[test]
    fn answers_follow_the_specification() {
        use RecordType::{A, AAAA, CNAME, PTR, SRV, TXT};
        for (name, kind, want) in [
            ("web.default.svc.cluster.local", A, "10.96.0.7"),
            ("web.default.svc.cluster.local", AAAA, ""),
            ("none.default.svc.cluster.local", A, "NXDOMAIN"),
            ("default.svc.cluster.local", A, ""),
            ("other.svc.cluster.local", A, "NXDOMAIN"),
            ("db.default.svc.cluster.local", A, "10.244.0.2 | 10.244.0.3"),
            ("db-0.db.default.svc.cluster.local", A, "10.244.0.2"),
            ("db-9.db.default.svc.cluster.local", A, "NXDOMAIN"),
            ("empty.default.svc.cluster.local", A, "NXDOMAIN"),
            ("out.default.svc.cluster.local", A, "example.com. then example.com"),
            ("out.default.svc.cluster.local", CNAME, "example.com."),
            ("_http._tcp.web.default.svc.cluster.local", SRV, "0 100 80 web.default.svc.cluster.local."),
            ("_none._tcp.web.default.svc.cluster.local", SRV, "NXDOMAIN"),
            (
                "_http._tcp.db.default.svc.cluster.local",
                SRV,
                "0 100 8080 db-0.db.default.svc.cluster.local. | 0 100 8080 10-244-0-3.db.default.svc.cluster.local.",
            ),
            ("10-1-2-3.default.pod.cluster.local", A, "10.1.2.3"),
            ("x.default.pod.cluster.local", A, "NXDOMAIN"),
            ("dns-version.cluster.local", TXT, "1.1.0"),
            ("7.0.96.10.in-addr.arpa", PTR, "web.default.svc.cluster.local."),
            ("8.0.96.10.in-addr.arpa", PTR, "forward"),
            ("example.com", A, "forward"),
            ("notcluster.local", A, "forward"),
        ] {
            assert_eq!(ask(name, kind), want, "{name} {kind}");
        }
    }
}
