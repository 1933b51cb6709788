//! Container logs in the CRI's format: `2026-11-21T10:00:00.000000000Z stdout F text`.
//!
//! Rotation is the kubelet's: it moves the file away and asks for [`LogFile::reopen`].

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Longer lines are written in pieces, all but the last tagged P (partial).
const MAX_LINE: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamName {
    Stdout,
    Stderr,
}

impl StreamName {
    fn text(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

pub(super) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(Self { path: path.to_owned(), file: Self::file(path)? })
    }

    fn file(path: &Path) -> io::Result<File> {
        use std::os::unix::fs::OpenOptionsExt;
        File::options().create(true).append(true).mode(0o640).open(path)
    }

    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.file = Self::file(&self.path)?;
        Ok(())
    }

    /// A full disk loses lines; it must not stop the container.
    pub(super) fn write(&mut self, lines: &[u8]) {
        self.file.write_all(lines).ok();
    }
}

/// Cuts a stream of bytes into log lines.
#[derive(Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Adds bytes and puts complete lines into `out`.
    pub(super) fn push(&mut self, bytes: &[u8], stream: StreamName, time: &str, out: &mut Vec<u8>) {
        let mut bytes = bytes;
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            if self.rest.is_empty() {
                emit_line(&bytes[..end], stream, time, out);
            } else {
                self.rest.extend_from_slice(&bytes[..end]);
                emit_line(&self.rest, stream, time, out);
                self.rest.clear();
            }
            bytes = &bytes[end + 1..];
        }
        self.rest.extend_from_slice(bytes);
        while self.rest.len() > MAX_LINE {
            emit(&self.rest[..MAX_LINE], 'P', stream, time, out);
            self.rest.drain(..MAX_LINE);
        }
    }

    /// What came without a newline at the end: partial, so that readers do not add one.
    pub(super) fn finish(&mut self, stream: StreamName, time: &str, out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            emit(&self.rest, 'P', stream, time, out);
            self.rest = Vec::new();
        }
    }
}

fn emit_line(line: &[u8], stream: StreamName, time: &str, out: &mut Vec<u8>) {
    let mut line = line;
    while line.len() > MAX_LINE {
        emit(&line[..MAX_LINE], 'P', stream, time, out);
        line = &line[MAX_LINE..];
    }
    emit(line, 'F', stream, time, out);
}

fn emit(text: &[u8], tag: char, stream: StreamName, time: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(time.as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.text().as_bytes());
    out.extend_from_slice(&[b' ', tag as u8, b' ']);
    out.extend_from_slice(text);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk, StreamName::Stderr, "T", &mut out);
        }
        lines.finish(StreamName::Stderr, "T", &mut out);
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn cutting() {
        assert_eq!(lines(&[b"a\nb", b"c\n\n", b"end"]), ["T stderr F a", "T stderr F bc", "T stderr F ", "T stderr P end"]);
        let long = vec![b'x'; MAX_LINE + 3];
        let cut = lines(&[&long, b"\n"]);
        assert_eq!(cut.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE + 11, 3 + 11]);
        assert!(cut[0].starts_with("T stderr P ") && cut[1].starts_with("T stderr F "));
        let one = [long, b"\n".to_vec()].concat();
        assert_eq!(lines(&[&one]), cut);
    }
}
