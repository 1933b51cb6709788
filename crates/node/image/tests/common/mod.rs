//! A registry in a few lines, on loopback, that can be told to misbehave.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RANGE, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tiphys_image::*;

#[derive(Default)]
pub(crate) struct State {
    /// `library/x/manifests/latest` and so on, below `/v2/`.
    pub(crate) content: BTreeMap<String, Bytes>,
    pub(crate) requests: Vec<String>,
    /// What the Authorization header must be, and the challenge if it is not.
    pub(crate) wanted: Option<(String, String)>,
    /// Answers to other paths: tokens.
    pub(crate) other: BTreeMap<String, (String, String)>,
    /// Cut the connection after so many bytes of a blob, so many times.
    pub(crate) cuts: usize,
    pub(crate) cut_after: usize,
    /// Never finish a blob that is larger than this.
    pub(crate) stall_above: Option<usize>,
    /// Send blob requests here first.
    pub(crate) redirect_blobs: Option<String>,
}

#[derive(Clone, Default)]
pub(crate) struct Registry(pub(crate) Arc<Mutex<State>>);

type Body = BoxBody<Bytes, std::io::Error>;

fn body(frames: Vec<Result<Bytes, std::io::Error>>) -> Body {
    let frames = frames.into_iter().map(|frame| frame.map(Frame::data));
    BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)))
}

fn status(status: StatusCode, text: &str) -> Response<Body> {
    let json = format!(r#"{{"errors":[{{"code":"X","message":"{text}"}}]}}"#);
    let mut response = Response::new(body(vec![Ok(Bytes::from(json))]));
    *response.status_mut() = status;
    response
}

impl Registry {
    /// Serves until the runtime ends; the address.
    pub(crate) async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let registry = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let registry = registry.clone();
                let service = hyper::service::service_fn(move |request| {
                    let answer = registry.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        address
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let mut state = self.0.lock();
        let path = request.uri().path().to_owned();
        state.requests.push(request.uri().to_string());
        let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        if let Some((wanted, answer)) = state.other.get(&path) {
            let granted = wanted.is_empty() || *wanted == authorization;
            return if granted { Response::new(body(vec![Ok(answer.clone().into())])) } else { status(StatusCode::UNAUTHORIZED, "who?") };
        }
        if let Some((wanted, challenge)) = &state.wanted
            && *wanted != authorization
        {
            let mut response = status(StatusCode::UNAUTHORIZED, "authentication required");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge.parse().expect("a header"));
            return response;
        }
        let key = path.trim_start_matches("/v2/").to_owned();
        if let Some(elsewhere) = state.redirect_blobs.clone().filter(|_| key.contains("/blobs/")) {
            let mut response = status(StatusCode::TEMPORARY_REDIRECT, "");
            response.headers_mut().insert(LOCATION, format!("{elsewhere}/v2/{key}").parse().expect("a header"));
            return response;
        }
        match state.content.get(&key).cloned() {
            None => status(StatusCode::NOT_FOUND, "manifest unknown"),
            Some(content) if key.contains("/manifests/") => {
                let mut response = Response::new(body(vec![Ok(content)]));
                response.headers_mut().insert(CONTENT_TYPE, "application/vnd.oci.image.manifest.v1+json".parse().expect("a header"));
                response
            }
            Some(content) => blob(&mut state, request, content),
        }
    }

    /// Adds an image of these layers under `repository:tag`; the digests of its blobs.
    pub(crate) fn add(&self, repository: &str, tag: &str, layers: &[Vec<u8>], config: &str) -> Vec<Digest> {
        let diff_ids: Vec<_> = layers.iter().map(|layer| format!("\"{}\"", Digest::of(layer))).collect();
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{config},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diff_ids.join(",")
        );
        let mut digests = vec![self.blob(repository, config.as_bytes())];
        let mut described = Vec::new();
        for layer in layers {
            let packed = gzip(layer);
            digests.push(self.blob(repository, &packed));
            described.push(descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", &packed));
        }
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{},"layers":[{}]}}"#,
            descriptor("application/vnd.docker.container.image.v1+json", config.as_bytes()),
            described.join(",")
        );
        digests.push(self.manifest(repository, tag, manifest.as_bytes()));
        digests
    }

    pub(crate) fn manifest(&self, repository: &str, tag: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let mut state = self.0.lock();
        for target in [tag.to_owned(), digest.to_string()] {
            state.content.insert(format!("{repository}/manifests/{target}"), Bytes::copy_from_slice(bytes));
        }
        digest
    }

    fn blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.0.lock().content.insert(format!("{repository}/blobs/{digest}"), Bytes::copy_from_slice(bytes));
        digest
    }

    /// How often paths with this in them were asked for.
    pub(crate) fn asked(&self, what: &str) -> usize {
        self.0.lock().requests.iter().filter(|request| request.contains(what)).count()
    }
}

fn blob(state: &mut State, request: &Request<Incoming>, content: Bytes) -> Response<Body> {
    let range = request.headers().get(RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let from: usize = range.unwrap_or(0);
    let rest = content.slice(from.min(content.len())..);
    let cut = state.cuts > 0 && rest.len() > state.cut_after;
    let mut response = if state.stall_above.is_some_and(|limit| content.len() > limit) {
        let first = futures_util::stream::iter([Ok(Frame::data(rest.slice(..rest.len() / 2)))]);
        let stalled = futures_util::StreamExt::chain(first, futures_util::stream::pending());
        Response::new(BodyExt::boxed(StreamBody::new(stalled)))
    } else if cut {
        state.cuts -= 1;
        Response::new(body(vec![Ok(rest.slice(..state.cut_after)), Err(std::io::Error::other("cut"))]))
    } else {
        Response::new(body(vec![Ok(rest)]))
    };
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, Digest::of(bytes), bytes.len())
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("written");
    encoder.finish().expect("compressed")
}

/// A layer of files with these contents; a name that ends in `/` is a folder.
pub(crate) fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        let folder = name.ends_with('/');
        header.set_entry_type(if folder { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_mode(if folder { 0o755 } else { 0o644 });
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, *content).expect("appended");
    }
    builder.into_inner().expect("finished")
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(next).collect()
}

/// A store whose every registry is the one at `address`.
pub(crate) fn store(root: &Path, address: &str, keep_blobs: bool) -> Arc<ImageStore> {
    let mirrors = vec![format!("docker.io=http://{address}").parse().expect("a mirror")];
    // No way to the real one, whatever a test does.
    let certs = root.join("certs.d");
    std::fs::create_dir_all(certs.join("docker.io")).expect("a folder");
    std::fs::write(certs.join("docker.io/hosts.toml"), "server = \"http://127.0.0.1:1\"\n").expect("a file");
    let hosts = Hosts { mirrors, certs_dir: Some(certs) };
    ImageStore::open(Options { hosts, keep_blobs, ..Options::new(root.join("store")) }).expect("opens")
}
