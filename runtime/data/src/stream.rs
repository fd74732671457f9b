//! An output that takes bytes as they come. Where it is a pipe, whoever waits for its reader may give up.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// Called again and again while a pipe waits for its reader, with how long it has waited; an error ends the waiting.
pub type Wait = Arc<dyn Fn(&Path, Duration) -> io::Result<()> + Send + Sync>;

/// How long nobody asks whether to wait on.
const PAUSE: Duration = Duration::from_millis(50);

pub struct Stream {
    file: File,
    /// Of a pipe, which does not block.
    pipe: Option<(PathBuf, Wait)>,
}

impl Stream {
    /// A regular file that is open already, such as /dev/stdout, is added to.
    pub fn open(path: &Path, wait: &Wait) -> io::Result<Self> {
        let kind = fs::metadata(path)?.file_type();
        if !kind.is_fifo() {
            return Ok(File::options().write(true).append(kind.is_file()).open(path)?.into());
        }
        let (start, options) = (Instant::now(), OFlags::NONBLOCK.bits().cast_signed());
        loop {
            match File::options().write(true).custom_flags(options).open(path) {
                Ok(file) => return Ok(Self { file, pipe: Some((path.into(), wait.clone())) }),
                Err(e) if e.raw_os_error() != Some(Errno::NXIO.raw_os_error()) => return Err(e),
                // A pipe without a name, such as /dev/stdout, gets no other reader.
                Err(_) if path.canonicalize().is_err() => return Err(ErrorKind::BrokenPipe.into()),
                Err(_) => wait(path, start.elapsed())?,
            }
            thread::sleep(PAUSE);
        }
    }
}

impl From<File> for Stream {
    fn from(file: File) -> Self {
        Self { file, pipe: None }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let start = Instant::now();
        loop {
            match (self.file.write(bytes), &self.pipe) {
                (Err(e), Some((path, wait))) if e.kind() == ErrorKind::WouldBlock => {
                    let pause = Timespec { tv_sec: 0, tv_nsec: PAUSE.subsec_nanos().into() };
                    // Whatever it says, the next write finds out.
                    let _ = poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], Some(&pause));
                    wait(path, start.elapsed())?;
                }
                (written, _) => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    fn fifo() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe");
        let made = rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0);
        made.expect("a pipe");
        (folder, path)
    }

    /// Gives up when it is asked the third time.
    fn impatient() -> (Wait, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let wait = move |_: &Path, _| match count.fetch_add(1, Relaxed) {
            0 | 1 => Ok(()),
            _ => Err(io::Error::other("enough")),
        };
        (Arc::new(wait), asked)
    }

    #[test]
    fn waiting_for_a_reader_can_be_ended() {
        let (_folder, path) = fifo();
        let (wait, asked) = impatient();
        assert_eq!(Stream::open(&path, &wait).map(drop).expect_err("nobody reads").to_string(), "enough");
        assert_eq!(asked.load(Relaxed), 3);
        // A reader that takes nothing: the pipe is full after a while.
        let reader = File::options().read(true).write(true).open(&path).expect("a reader");
        let (wait, _) = impatient();
        let mut stream = Stream::open(&path, &wait).expect("there is a reader");
        assert_eq!(stream.write_all(&[0; 1 << 20]).expect_err("full").to_string(), "enough");
        drop(reader);
    }

    #[test]
    fn a_slow_reader_gets_all() {
        let (_folder, path) = fifo();
        let bytes: Vec<u8> = (0..1_000_000u32).map(|i| i as u8).collect();
        let reader = thread::spawn({
            let path = path.clone();
            move || fs::read(path).expect("read")
        });
        let mut stream = Stream::open(&path, &(Arc::new(|_: &Path, _| Ok(())) as Wait)).expect("opens");
        stream.write_all(&bytes).expect("written");
        drop(stream);
        assert!(reader.join().expect("a reader") == bytes);
    }
}
