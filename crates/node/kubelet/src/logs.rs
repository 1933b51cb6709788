//! Container logs: files in the CRI's line format (`<RFC 3339 time> <stdout|stderr> <F|P> <text>`), read with the options of
//! `kubectl logs`, followed by inotify across rotations.
//!
//! Reads are of local files in small pieces, so they are done where they are asked for.

use bytes::Bytes;
use jiff::Timestamp;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::sync::{mpsc, watch};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) follow: bool,
    pub(crate) previous: bool,
    pub(crate) timestamps: bool,
    pub(crate) tail: Option<u64>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) limit: Option<u64>,
    /// `Stdout` or `Stderr`; None is both.
    pub(crate) stream: Option<&'static str>,
}

struct Line<'a> {
    time: &'a str,
    stream: &'a str,
    partial: bool,
    text: &'a [u8],
}

/// None: not a line of this format.
fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tag = parts.next()?;
    let text = parts.next().unwrap_or_default();
    // Tags may be several, split by colons; the first says whether the line is whole.
    let partial = tag.split(|b| *b == b':').next() == Some(b"P");
    matches!(stream, "stdout" | "stderr").then_some(Line { time, stream, partial, text })
}

/// Turns raw lines into what the client sees.
struct Writer<'a> {
    options: &'a Options,
    left: Option<u64>,
    line_open: bool,
    out: Vec<u8>,
}

impl Writer<'_> {
    /// False when the limit is reached.
    fn line(&mut self, raw: &[u8]) -> bool {
        let Some(line) = parse(raw) else { return true };
        if self.options.stream.is_some_and(|s| s != line.stream) {
            return true;
        }
        if let Some(since) = self.options.since
            && line.time.parse::<Timestamp>().is_ok_and(|t| t < since)
        {
            return true;
        }
        let start = self.out.len();
        if self.options.timestamps && !self.line_open {
            self.out.extend_from_slice(line.time.as_bytes());
            self.out.push(b' ');
        }
        self.out.extend_from_slice(line.text);
        self.line_open = line.partial;
        if !line.partial {
            self.out.push(b'\n');
        }
        if let Some(left) = &mut self.left {
            let size = (self.out.len() - start) as u64;
            if size >= *left {
                self.out.truncate(start + *left as usize);
                *left = 0;
                return false;
            }
            *left -= size;
        }
        true
    }
}

/// Sends a log. `changes` tells of changes in its folder; `ended` says whether the container writes no more.
pub(crate) async fn send<F, Fut>(
    path: PathBuf,
    options: &Options,
    out: mpsc::Sender<Bytes>,
    mut changes: Option<watch::Receiver<u64>>,
    ended: F,
) -> io::Result<()>
where
    F: Fn() -> Fut,
    Fut: Future<Output = bool>,
{
    let mut writer = Writer { options, left: options.limit, line_open: false, out: Vec::new() };
    let mut file = open(&path, options)?;
    let (mut rest, mut last_look) = (Vec::new(), false);
    loop {
        if let Some(changes) = &mut changes {
            changes.mark_unchanged();
        }
        let going = drain(&mut file, &mut rest, &mut writer, &out).await?;
        if !going || out.is_closed() {
            return Ok(());
        }
        let Some(changes) = changes.as_mut().filter(|_| options.follow) else { return Ok(()) };
        // After a rotation the rest is in a new file of the same name.
        if rotated(&file, &path) {
            file = File::open(&path)?;
            continue;
        }
        if last_look {
            return Ok(());
        }
        if ended().await {
            last_look = true;
            continue;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            () = out.closed() => return Ok(()),
        }
    }
}

fn open(path: &Path, options: &Options) -> io::Result<File> {
    let mut file = File::open(path)?;
    if let Some(lines) = options.tail {
        let start = tail_offset(&mut file, lines)?;
        file.seek(SeekFrom::Start(start))?;
    }
    Ok(file)
}

fn rotated(file: &File, path: &Path) -> bool {
    let ino = |m: io::Result<std::fs::Metadata>| m.map(|m| m.ino()).ok();
    let now = ino(std::fs::metadata(path));
    now.is_some() && now != ino(file.metadata())
}

const CHUNK: usize = 32 * 1024;

/// Sends what there is up to the end of the file. An unfinished line waits in `rest`.
async fn drain(file: &mut File, rest: &mut Vec<u8>, writer: &mut Writer<'_>, out: &mpsc::Sender<Bytes>) -> io::Result<bool> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(true);
        }
        rest.extend_from_slice(&buffer[..n]);
        let mut going = true;
        let mut start = 0;
        while let Some(end) = rest[start..].iter().position(|b| *b == b'\n') {
            going = writer.line(&rest[start..start + end]);
            start += end + 1;
            if !going {
                break;
            }
        }
        rest.drain(..start);
        if !writer.out.is_empty() && out.send(Bytes::from(std::mem::take(&mut writer.out))).await.is_err() {
            return Ok(false);
        }
        if !going {
            return Ok(false);
        }
    }
}

/// Where the last lines begin, looked for from the end.
fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let (mut at, mut seen) = (end, 0);
    let mut buffer = vec![0; 4096];
    while at > 0 {
        let size = at.min(buffer.len() as u64) as usize;
        at -= size as u64;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut buffer[..size])?;
        for index in (0..size).rev() {
            let position = at + index as u64;
            // The newline that ends the last line does not begin another.
            if buffer[index] == b'\n' && position + 1 != end {
                seen += 1;
                if seen == lines {
                    return Ok(position + 1);
                }
            }
        }
    }
    Ok(0)
}

/// The end of a log as text, for termination messages.
pub(crate) fn tail_text(path: &Path, lines: usize, bytes: usize) -> String {
    let options = Options { tail: Some(lines as u64), ..Options::default() };
    let Ok(mut file) = open(path, &options) else { return String::new() };
    let mut raw = Vec::new();
    if file.read_to_end(&mut raw).is_err() {
        return String::new();
    }
    let mut writer = Writer { options: &options, left: None, line_open: false, out: Vec::new() };
    for line in raw.split(|b| *b == b'\n') {
        writer.line(line);
    }
    let start = writer.out.len().saturating_sub(bytes);
    String::from_utf8_lossy(&writer.out[start..]).into_owned()
}

/// Removes the log of one run with what was rotated from it.
pub(crate) fn remove(folder: &Path, restart_count: i32) {
    let prefix = format!("{restart_count}.log");
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Moves a log that has grown too long aside, and forgets the oldest. True: the runtime must open it again.
pub(crate) fn rotate(path: &Path, max_size: u64, max_files: u32, now: Timestamp) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() >= max_size => {}
        _ => return Ok(false),
    }
    let stamp = now.strftime("%Y%m%d-%H%M%S");
    let aside = PathBuf::from(format!("{}.{stamp}", path.display()));
    std::fs::rename(path, aside)?;
    let prefix = format!("{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let mut old: Vec<PathBuf> = std::fs::read_dir(path.parent().unwrap_or(Path::new(".")))?
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(&prefix))
        .map(|e| e.path())
        .collect();
    old.sort();
    let keep = max_files.saturating_sub(1).max(1) as usize;
    let surplus = old.len().saturating_sub(keep);
    for path in old.drain(..surplus) {
        std::fs::remove_file(path)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01.000000000Z stdout F one\n2026-01-01T00:00:02.000000000Z stderr F err\n\
                       2026-01-01T00:00:03.000000000Z stdout P par\n2026-01-01T00:00:03.000000000Z stdout F tial\n\
                       2026-01-01T00:00:04.000000000Z stdout F four\n";

    async fn run(options: Options) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("0.log");
        std::fs::write(&path, LOG).expect("written");
        let (out, mut from) = mpsc::channel(16);
        send(path, &options, out, None, || async { true }).await.expect("read");
        let mut text = Vec::new();
        while let Some(chunk) = from.recv().await {
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).expect("text")
    }

    #[tokio::test]
    async fn options() {
        let plain = Options::default();
        assert_eq!(run(plain.clone()).await, "one\nerr\npartial\nfour\n");
        assert_eq!(run(Options { tail: Some(1), ..plain.clone() }).await, "four\n");
        assert_eq!(run(Options { tail: Some(0), ..plain.clone() }).await, "");
        assert_eq!(run(Options { tail: Some(99), limit: Some(5), ..plain.clone() }).await, "one\ne");
        assert_eq!(run(Options { stream: Some("stderr"), ..plain.clone() }).await, "err\n");
        let since = "2026-01-01T00:00:04Z".parse().ok();
        assert_eq!(run(Options { since, timestamps: true, ..plain }).await, "2026-01-01T00:00:04.000000000Z four\n");
    }

    #[tokio::test]
    async fn following_goes_across_a_rotation_and_ends_with_the_container() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("0.log");
        std::fs::write(&path, "2026-01-01T00:00:01Z stdout F a\n").expect("written");
        let (changed, changes) = watch::channel(0);
        let (over, is_over) = watch::channel(false);
        let (out, mut from) = mpsc::channel(16);
        let log = path.clone();
        let task = tokio::spawn(async move {
            let options = Options { follow: true, ..Options::default() };
            send(log, &options, out, Some(changes), || async { *is_over.borrow() }).await
        });
        assert_eq!(from.recv().await.as_deref(), Some(&b"a\n"[..]));
        assert!(rotate(&path, 1, 2, Timestamp::UNIX_EPOCH).expect("rotated"));
        std::fs::write(&path, "2026-01-01T00:00:02Z stdout F b\n").expect("written");
        changed.send_modify(|n| *n += 1);
        assert_eq!(from.recv().await.as_deref(), Some(&b"b\n"[..]));
        over.send_replace(true);
        changed.send_modify(|n| *n += 1);
        assert_eq!(from.recv().await, None);
        task.await.expect("no panic").expect("no error");
    }

    #[test]
    fn rotation_keeps_so_many() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("0.log");
        for second in 0..5 {
            std::fs::write(&path, "0123456789").expect("written");
            assert!(rotate(&path, 10, 3, Timestamp::from_second(second).expect("a time")).expect("rotated"));
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 2);
    }
}
