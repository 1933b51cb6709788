//! Questions about names outside the cluster, passed on to the machine's own name servers as they came.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long a name server may take before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(2);

/// The `nameserver` lines of a resolv.conf(5). Our own addresses are left out: asking ourselves would go on for ever.
pub(crate) fn nameservers(resolv_conf: &Path, own: &[IpAddr]) -> Vec<SocketAddr> {
    parse(&std::fs::read_to_string(resolv_conf).unwrap_or_default(), own)
}

fn parse(text: &str, own: &[IpAddr]) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|l| l.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    servers.filter(|ip| !own.contains(ip)).map(|ip| SocketAddr::new(ip, 53)).take(3).collect()
}

/// Asks each server in turn; none if nobody answers.
pub(crate) async fn ask(servers: &[SocketAddr], question: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
    for server in servers {
        let answer = async { if over_tcp { tcp(*server, question).await } else { udp(*server, question).await } };
        if let Ok(Ok(bytes)) = tokio::time::timeout(PATIENCE, answer).await {
            return Some(bytes);
        }
    }
    None
}

async fn udp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let len = socket.recv(&mut buffer).await?;
        // Only an answer to this very question counts.
        if len >= 12 && buffer.get(..2) == question.get(..2) {
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
}

async fn tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(question.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&len.to_be_bytes()[..], question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn own_addresses_are_not_asked() {
        let text = "# comment\nnameserver 10.0.0.1\nnameserver  192.0.2.1\nsearch example.com\nnameserver bad\n";
        let servers = parse(text, &["10.0.0.1".parse().expect("address")]);
        assert_eq!(servers, ["192.0.2.1:53".parse().expect("address")]);
    }
}
