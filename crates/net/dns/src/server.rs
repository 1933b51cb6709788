//! The listener: UDP and TCP on each address.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use tiphys_base::tasks::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::answer::{Answer, Zone, answer, authority};
use crate::forward;

/// Questions that may be under way to other name servers at once.
const FORWARDS: usize = 256;
/// What fits a UDP answer where the client says nothing (RFC 1035).
const PLAIN_UDP: u16 = 512;
const TCP_IDLE: Duration = Duration::from_secs(10);
const FREE_PORT_ATTEMPTS: u32 = 64;

#[derive(Debug, Clone)]
pub struct Config {
    pub listen: SocketAddr,
    /// The cluster's domain, without dots around it.
    pub domain: String,
    /// Where the machine's own name servers stand.
    pub resolv_conf: PathBuf,
    /// Addresses that lead here.
    pub own: Vec<IpAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("cannot listen for DNS on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

struct Server {
    zone: Arc<dyn Zone + Send + Sync>,
    config: Config,
    upstream: Vec<SocketAddr>,
    forwards: Semaphore,
}

/// Listens and answers for as long as the tasks live; gives the address, for a port of 0.
pub async fn start(config: Config, zone: Arc<dyn Zone + Send + Sync>, tasks: &Tasks) -> Result<SocketAddr, DnsError> {
    let (address, udp, tcp) = bind(config.listen).await?;
    let upstream = forward::nameservers(&config.resolv_conf, &config.own);
    let server = Arc::new(Server { zone, config, upstream, forwards: Semaphore::new(FORWARDS) });
    tasks.spawn("dns-udp", serve_udp(server.clone(), Arc::new(udp), tasks.clone()));
    tasks.spawn("dns-tcp", serve_tcp(server, tcp, tasks.clone()));
    Ok(address)
}

/// Both transports on one port. The kernel knows which ports are free per transport only: where the port is ours to choose,
/// one that somebody has over TCP makes us choose another.
async fn bind(listen: SocketAddr) -> Result<(SocketAddr, UdpSocket, TcpListener), DnsError> {
    let mut attempts = if listen.port() == 0 { FREE_PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let failed = |address| move |source| DnsError::Listen { address, source };
        let udp = UdpSocket::bind(listen).await.map_err(failed(listen))?;
        let address = udp.local_addr().map_err(failed(listen))?;
        match TcpListener::bind(address).await {
            Ok(tcp) => return Ok((address, udp, tcp)),
            Err(source) if source.kind() == std::io::ErrorKind::AddrInUse && attempts > 0 => {}
            Err(source) => return Err(DnsError::Listen { address, source }),
        }
    }
}

async fn serve_udp(server: Arc<Server>, socket: Arc<UdpSocket>, tasks: Tasks) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(question) = buffer.get(..len) else { continue };
        let rest = match server.local(question, false) {
            Local::Reply(reply) => {
                if !reply.is_empty() {
                    drop(socket.send_to(&reply, from).await);
                }
                continue;
            }
            rest => rest,
        };
        let (server, socket, question) = (server.clone(), socket.clone(), question.to_vec());
        tasks.spawn("dns-forward", async move {
            if let Some(reply) = server.finish(rest, &question, false).await {
                drop(socket.send_to(&reply, from).await);
            }
        });
    }
}

async fn serve_tcp(server: Arc<Server>, listener: TcpListener, tasks: Tasks) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let server = server.clone();
        tasks.spawn("dns-tcp-connection", async move {
            // A client that breaks off is nobody's concern.
            let _ = tcp_connection(&server, stream).await;
        });
    }
}

async fn tcp_connection(server: &Server, mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let len = tokio::time::timeout(TCP_IDLE, stream.read_u16()).await??;
        let mut question = vec![0; usize::from(len)];
        tokio::time::timeout(TCP_IDLE, stream.read_exact(&mut question)).await??;
        let local = server.local(&question, true);
        let Some(reply) = server.finish(local, &question, true).await else { return Ok(()) };
        let len = u16::try_from(reply.len()).unwrap_or(u16::MAX);
        stream.write_all(&[&len.to_be_bytes()[..], &reply].concat()).await?;
    }
}

/// How far an answer comes without asking anyone.
enum Local {
    /// Empty: what came is no question, and gets no answer.
    Reply(Vec<u8>),
    /// The cluster's part of it, and the name whose records belong to it.
    Alias(Box<Partly>),
    NotOurs,
}

struct Partly {
    reply: Message,
    target: String,
    kind: RecordType,
    room: usize,
}

/// Aliases of aliases within the cluster.
const LONGEST_CHAIN: usize = 8;

impl Server {
    /// The answer, as far as it is the cluster's to give.
    fn local(&self, bytes: &[u8], over_tcp: bool) -> Local {
        let Ok(question) = Message::from_vec(bytes) else { return Local::Reply(malformed(bytes).unwrap_or_default()) };
        let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
        reply.metadata.recursion_desired = question.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.queries = question.queries.clone();
        if question.metadata.message_type != MessageType::Query {
            return Local::Reply(Vec::new());
        }
        let (OpCode::Query, [query]) = (question.metadata.op_code, question.queries.as_slice()) else {
            reply.metadata.response_code = ResponseCode::NotImp;
            return Local::Reply(reply.to_vec().unwrap_or_default());
        };
        let mut alias = None;
        let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        match answer(self.zone.as_ref(), &self.config.domain, &name, query.query_type()) {
            Answer::NotOurs => return Local::NotOurs,
            Answer::Alias { mut record, target } => {
                record.name = query.name().clone();
                reply.add_answer(*record);
                alias = Some((target, query.query_type()));
            }
            Answer::NoSuchName => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                reply.add_authorities(authority(&self.config.domain));
            }
            Answer::Records { answers, additionals } => {
                if answers.is_empty() && query.query_type() != RecordType::ANY {
                    reply.add_authorities(authority(&self.config.domain));
                }
                // The name as it was asked, so that clients which mix cases to be safe recognise it.
                reply.add_answers(answers.into_iter().map(|mut r| {
                    r.name = query.name().clone();
                    r
                }));
                reply.add_additionals(additionals);
            }
        }
        reply.metadata.authoritative = true;
        let room = question.edns.as_ref().map_or(PLAIN_UDP, |e| e.max_payload().max(PLAIN_UDP));
        if let Some(edns) = &question.edns {
            let mut own = hickory_proto::op::Edns::new();
            own.set_max_payload(edns.max_payload().clamp(PLAIN_UDP, 1232)).set_version(0);
            reply.set_edns(own);
        }
        let room = if over_tcp { usize::from(u16::MAX) } else { usize::from(room) };
        match alias {
            Some((target, kind)) => Local::Alias(Box::new(Partly { reply, target, kind, room })),
            None => Local::Reply(fit(reply, room).unwrap_or_default()),
        }
    }

    async fn finish(&self, local: Local, question: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        match local {
            Local::Reply(reply) => (!reply.is_empty()).then_some(reply),
            Local::NotOurs => self.forward(question, over_tcp).await,
            Local::Alias(partly) => self.follow(*partly).await,
        }
    }

    /// Adds what the target has. Where nobody knows it, the alias alone is the answer.
    async fn follow(&self, Partly { mut reply, mut target, kind, room }: Partly) -> Option<Vec<u8>> {
        for _ in 0..LONGEST_CHAIN {
            match answer(self.zone.as_ref(), &self.config.domain, &target, kind) {
                Answer::Alias { record, target: next } => {
                    reply.add_answer(*record);
                    target = next;
                }
                Answer::Records { answers, .. } => {
                    reply.add_answers(answers);
                    break;
                }
                Answer::NoSuchName => break,
                Answer::NotOurs => {
                    reply.add_answers(self.ask(&target, kind).await);
                    break;
                }
            }
        }
        fit(reply, room)
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Vec<Record> {
        let Ok(name) = Name::from_str_relaxed(format!("{name}.")) else { return Vec::new() };
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(name, kind));
        let Ok(bytes) = question.to_vec() else { return Vec::new() };
        let Ok(_place) = self.forwards.acquire().await else { return Vec::new() };
        let found = forward::ask(&self.upstream, &bytes, false).await;
        found.and_then(|bytes| Message::from_vec(&bytes).ok()).map(|m| m.answers).unwrap_or_default()
    }

    async fn forward(&self, bytes: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let _place = self.forwards.acquire().await.ok()?;
        match forward::ask(&self.upstream, bytes, over_tcp).await {
            Some(reply) => Some(reply),
            None => {
                let question = Message::from_vec(bytes).ok()?;
                let mut reply = Message::error_msg(question.metadata.id, question.metadata.op_code, ResponseCode::ServFail);
                reply.queries = question.queries;
                reply.metadata.recursion_available = true;
                reply.to_vec().ok()
            }
        }
    }
}

/// An answer that is too long is cut and marked, so that the client asks again over TCP.
fn fit(reply: Message, room: usize) -> Option<Vec<u8>> {
    let bytes = reply.to_vec().ok()?;
    if bytes.len() <= room { Some(bytes) } else { reply.truncate().to_vec().ok() }
}

fn malformed(bytes: &[u8]) -> Option<Vec<u8>> {
    let id = u16::from_be_bytes([*bytes.first().unwrap_or(&0), *bytes.get(1).unwrap_or(&0)]);
    Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Service;
    use std::net::Ipv4Addr;

    struct One;

    impl Zone for One {
        fn service(&self, _: &str, name: &str) -> Option<Service> {
            match name {
                "web" => Some(Service::Address { ip: Ipv4Addr::new(10, 96, 0, 9), ports: vec![] }),
                "alias" => Some(Service::External("web.default.svc.cluster.local".into())),
                _ => None,
            }
        }

        fn has_namespace(&self, _: &str) -> bool {
            true
        }

        fn by_address(&self, _: Ipv4Addr) -> Vec<String> {
            vec![]
        }
    }

    #[tokio::test]
    async fn answers_over_both_transports() {
        let tasks = Tasks::new();
        let config =
            Config { listen: ([127, 0, 0, 1], 0).into(), domain: "cluster.local".into(), resolv_conf: "/nowhere".into(), own: vec![] };
        let address = start(config, Arc::new(One), &tasks).await.expect("listens");
        let ask = |name: &str| {
            let mut message = Message::query();
            message.metadata.id = 77;
            message.add_query(Query::query(Name::from_ascii(name).expect("name"), RecordType::A));
            message.to_vec().expect("encodes")
        };
        for over_tcp in [false, true] {
            let reply = forward::ask(&[address], &ask("WEB.default.svc.cluster.local."), over_tcp).await.expect("answer");
            let reply = Message::from_vec(&reply).expect("message");
            assert_eq!(reply.answers.iter().map(|r| r.data.to_string()).collect::<Vec<_>>(), ["10.96.0.9"]);
            assert_eq!(reply.answers[0].name.to_ascii(), "WEB.default.svc.cluster.local.");
            let reply = forward::ask(&[address], &ask("alias.default.svc.cluster.local."), over_tcp).await.expect("answer");
            let found = Message::from_vec(&reply).expect("message").answers;
            let data: Vec<String> = found.iter().map(|r| r.data.to_string()).collect();
            assert_eq!(data, ["web.default.svc.cluster.local.", "10.96.0.9"], "an alias comes with what it stands for");
            let reply = forward::ask(&[address], &ask("no.default.svc.cluster.local."), over_tcp).await.expect("answer");
            assert_eq!(Message::from_vec(&reply).expect("message").metadata.response_code, ResponseCode::NXDomain);
            let reply = forward::ask(&[address], &ask("example.com."), over_tcp).await.expect("answer");
            assert_eq!(Message::from_vec(&reply).expect("message").metadata.response_code, ResponseCode::ServFail, "nobody to ask");
        }
        assert!(tasks.shut_down(Duration::from_secs(5)).await);
    }
}
