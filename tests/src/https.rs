//! A small HTTPS client with a client certificate: one connection, one request after the other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Who asks whom.
#[derive(Clone)]
pub struct Door {
    place: String,
    config: Arc<ClientConfig>,
}

impl Door {
    /// The API server at `https://HOST:PORT`, as the administrator whose certificate lies in a cluster's `pki` folder.
    pub fn admin(server: &str, pki: &Path) -> Result<Door> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(pki.join("ca.crt"))?)?;
        let chain = vec![CertificateDer::from_pem_file(pki.join("admin.crt"))?];
        let key = PrivateKeyDer::from_pem_file(pki.join("admin.key"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key)?;
        Ok(Door { place: server.trim_start_matches("https://").to_owned(), config: Arc::new(config) })
    }

    pub fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect_timeout(&self.place.parse()?, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        let host = self.place.rsplit_once(':').map_or(self.place.as_str(), |(host, _)| host).to_owned();
        let tls = ClientConnection::new(self.config.clone(), ServerName::try_from(host.clone())?)?;
        Ok(Connection { stream: StreamOwned::new(tls, stream), host, buffer: Vec::new() })
    }
}

pub struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    host: String,
    buffer: Vec<u8>,
}

impl Connection {
    /// One request; gives status and body. After an error the connection is of no use any more.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(body.as_bytes())?;
        self.stream.flush()?;
        let head = self.head()?;
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("no status line")?;
        let header = |name: &str| {
            head.lines().find_map(|l| l.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned()))
        };
        let text = match header("content-length") {
            Some(length) => self.take(length.parse()?)?,
            None => self.chunks()?,
        };
        Ok((status, String::from_utf8(text)?))
    }

    fn more(&mut self) -> Result<()> {
        let mut part = [0; 16 << 10];
        let count = self.stream.read(&mut part)?;
        ensure!(count > 0, "the connection was closed");
        self.buffer.extend_from_slice(&part[..count]);
        Ok(())
    }

    fn line_end(&mut self, end: &[u8]) -> Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|w| w == end) {
                let line: Vec<u8> = self.buffer.drain(..at + end.len()).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            self.more()?;
        }
    }

    fn head(&mut self) -> Result<String> {
        self.line_end(b"\r\n\r\n")
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.more()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let size = usize::from_str_radix(self.line_end(b"\r\n")?.trim(), 16)?;
            all.extend(self.take(size)?);
            self.take(2)?;
            if size == 0 {
                return Ok(all);
            }
        }
    }
}
