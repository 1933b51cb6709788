use std::io;
use std::time::Duration;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::net::sockopt;

use crate::encode::{Encoded, encode};
use crate::ruleset::Change;

const NLMSG_ERROR: u16 = 2;

#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("the kernel refused {change:?}")]
    Refused {
        change: Box<Change>,
        #[source]
        source: io::Error,
    },
    #[error("the kernel refused the whole nftables transaction")]
    Transaction(#[source] io::Error),
    #[error("{what}")]
    Socket {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

/// A socket to the kernel's nftables, of the network namespace that it was opened in, for one table of the `ip` family.
pub struct Nft {
    socket: Socket,
    table: String,
    sequence: u32,
}

impl Nft {
    /// Of the calling thread's network namespace.
    pub fn open(table: impl Into<String>) -> Result<Self, NftError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            // A first full sync of thousands of Services is a few MiB in one message.
            let _ = sockopt::set_socket_send_buffer_size_force(&socket, 32 << 20);
            let _ = sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20);
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(30)))?;
            Ok(socket)
        };
        let socket = open().map_err(|source| NftError::Socket { what: "opening a netfilter socket", source })?;
        Ok(Nft { socket, table: table.into(), sequence: 0 })
    }

    /// Makes all changes or, on an error, none.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), NftError> {
        if changes.is_empty() {
            return Ok(());
        }
        let encoded = encode(&self.table, changes, self.sequence);
        self.sequence = encoded.last_sequence + 1;
        self.socket.send(&encoded.bytes, 0).map_err(|source| NftError::Socket { what: "sending an nftables transaction", source })?;
        self.await_answer(&encoded, changes)
    }

    /// Removes the whole table; that there is none is fine.
    pub fn delete_table(&mut self) -> Result<(), NftError> {
        self.apply(&[Change::AddTable, Change::DeleteTable])
    }

    fn await_answer(&mut self, encoded: &Encoded, changes: &[Change]) -> Result<(), NftError> {
        let mut refused = None;
        loop {
            let (datagram, _) =
                self.socket.recv_from_full().map_err(|source| NftError::Socket { what: "waiting for nftables' answer", source })?;
            for (sequence, errno) in errors(&datagram) {
                if errno != 0 && refused.is_none() {
                    refused = Some(self.refusal(encoded, changes, sequence, errno));
                }
                let over = sequence == encoded.last_sequence || (sequence == encoded.first_sequence && errno != 0);
                if over {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    fn refusal(&self, encoded: &Encoded, changes: &[Change], sequence: u32, errno: i32) -> NftError {
        let source = io::Error::from_raw_os_error(errno);
        let message = sequence.wrapping_sub(encoded.first_sequence).checked_sub(1);
        let change = message.and_then(|m| encoded.changes.get(m as usize)).and_then(|index| changes.get(*index));
        match change {
            Some(change) => NftError::Refused { change: Box::new(change.clone()), source },
            None => NftError::Transaction(source),
        }
    }
}

/// Sequence number and errno of each NLMSG_ERROR in a datagram; errno 0 acknowledges.
fn errors(datagram: &[u8]) -> Vec<(u32, i32)> {
    let word = |bytes: &[u8], at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
    let mut out = Vec::new();
    let mut rest = datagram;
    while let (Some(len), Some(kind), Some(sequence)) = (word(rest, 0), rest.get(4..6), word(rest, 8)) {
        if kind == NLMSG_ERROR.to_ne_bytes()
            && let Some(code) = word(rest, 16)
        {
            out.push((sequence, -code.cast_signed()));
        }
        rest = rest.get((len as usize).max(16).next_multiple_of(4)..).unwrap_or(&[]);
    }
    out
}
