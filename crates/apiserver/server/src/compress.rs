//! Large answers leave compressed where the client takes gzip and the way to it is a wire, by upstream's measures (APIResponseCompression): 128 KiB and
//! more, level 1. For a client on this machine it would cost both sides more time than it saves: to it, answers go as they are.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};

use crate::body::{Answered, Body, BoxError};
use crate::chain::Origin;

/// Shorter answers are not worth it.
const LEAST: u64 = 128 * 1024;
/// What is compressed leaves when there is so much of it.
const PIECE: usize = 16 * 1024;

/// Whether the client of a request gets large answers compressed.
pub(crate) fn is_wanted(headers: &HeaderMap, origin: &Origin) -> bool {
    let Origin::Socket(peer) = origin else { return false };
    let clauses = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    !peer.near && clauses.map(str::trim).any(|clause| clause == "gzip")
}

/// The answer, compressed if it is large or its length is not known beforehand, as that of long lists.
pub(crate) fn pack(answered: Answered) -> Answered {
    if answered.body().size_hint().exact().is_some_and(|length| length < LEAST) || answered.headers().contains_key(header::CONTENT_ENCODING)
    {
        return answered;
    }
    let mut answered = answered.map(packed);
    let headers = answered.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    answered
}

fn packed(body: Body) -> Body {
    let encoder = GzEncoder::new(Vec::with_capacity(2 * PIECE), Compression::new(1));
    let pieces = stream::unfold(Some((body, encoder)), |state| async move {
        let (mut body, mut encoder) = state?;
        while encoder.get_ref().len() < PIECE {
            match body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref()
                        && let Err(error) = encoder.write_all(data)
                    {
                        return Some((Err(error.into()), None));
                    }
                }
                Some(Err(error)) => return Some((Err(error), None)),
                None => return Some((encoder.finish().map(piece).map_err(BoxError::from), None)),
            }
        }
        let made = std::mem::replace(encoder.get_mut(), Vec::with_capacity(2 * PIECE));
        Some((Ok(piece(made)), Some((body, encoder))))
    });
    StreamBody::new(pieces).boxed_unsync()
}

fn piece(made: Vec<u8>) -> Frame<Bytes> {
    Frame::data(made.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;

    use super::*;
    use crate::authenticate::Peer;
    use crate::body;

    fn origin(near: bool) -> Origin {
        Origin::Socket(Arc::new(Peer { near, ..Peer::default() }))
    }

    #[test]
    fn only_clients_that_ask_for_it_and_are_far() {
        for (accept, near, wanted) in
            [("gzip", false, true), ("deflate, gzip", false, true), ("gzip", true, false), ("deflate", false, false), ("", false, false)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, accept.parse().expect("a value"));
            assert_eq!(is_wanted(&headers, &origin(near)), wanted, "{accept}, {near}");
        }
    }

    #[tokio::test]
    async fn what_is_large_comes_back_as_it_was() {
        let text: Vec<u8> =
            (0..30_000u32).flat_map(|i| format!("{{\"kind\":\"Pod\",\"metadata\":{{\"name\":\"p-{i}\"}}}}").into_bytes()).collect();
        let chunks: Vec<Bytes> = text.chunks(10_000).map(Bytes::copy_from_slice).collect();
        for body in [body::full(text.clone()), body::streaming(stream::iter(chunks))] {
            let packed = pack(body::answer(200, "application/json", body));
            assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip");
            assert_eq!(packed.headers()[header::VARY], "Accept-Encoding");
            let bytes = packed.into_body().collect().await.expect("a body").to_bytes();
            assert!(bytes.len() < text.len() / 2, "{}", bytes.len());
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut back).expect("gzip");
            assert!(back == text);
        }
    }

    #[test]
    fn what_is_small_stays() {
        let answered = pack(body::answer(200, "application/json", body::full(vec![b'x'; LEAST as usize - 1])));
        assert!(!answered.headers().contains_key(header::CONTENT_ENCODING));
    }
}
