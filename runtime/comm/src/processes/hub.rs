//! The hub: passes messages on between processes, and notices when one is gone.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::frame::{Frame, Message, To};
use super::{PULSE, SILENCE, was_stopped, why_lost};
use crate::report::End;
use crate::{Cause, CommError};

/// Runs in threads until the process ends.
pub struct Hub {
    addresses: Vec<SocketAddr>,
}

struct Desk {
    ranks: Mutex<Vec<Seat>>,
}

#[derive(Default)]
struct Seat {
    /// None before the rank has come and after it is gone.
    writer: Option<TcpStream>,
    heard: Option<Instant>,
    /// Whether it may go, having said so.
    gone: bool,
    /// Why nothing more is written to it.
    unwritten: Option<String>,
    /// What came before the rank did.
    kept: Vec<Message>,
}

impl Hub {
    /// Opens a hub for `world` ranks on any free port.
    pub fn open(world: usize) -> Result<Self, CommError> {
        Self::listen(world).map_err(|e| CommError::Hub(Arc::new(e)))
    }

    /// Where other processes may find it: every address of this machine, those that reach furthest first.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    fn listen(world: usize) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let port = listener.local_addr()?.port();
        let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()?.into_iter().map(|i| i.ip()).collect();
        addresses.retain(IpAddr::is_ipv4);
        addresses.push(Ipv4Addr::LOCALHOST.into());
        addresses.sort_by_key(|a| (a.is_loopback(), *a));
        addresses.dedup();
        let desk = Arc::new(Desk { ranks: Mutex::new((0..world).map(|_| Seat::default()).collect()) });
        let pulse = desk.clone();
        thread::Builder::new().name("hub pulse".into()).spawn(move || {
            loop {
                let start = Instant::now();
                thread::sleep(PULSE);
                pulse.pulse(was_stopped(start));
            }
        })?;
        thread::Builder::new().name("hub".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let desk = desk.clone();
                // Whoever cannot be served finds its connection closed.
                let _ = thread::Builder::new().name("hub rank".into()).spawn(move || desk.serve(stream));
            }
        })?;
        Ok(Self { addresses: addresses.into_iter().map(|a| SocketAddr::new(a, port)).collect() })
    }
}

impl Desk {
    fn serve(&self, stream: TcpStream) {
        let Ok(rank) = self.welcome(&stream) else { return };
        let why = loop {
            match Frame::read(&stream) {
                Ok(Frame { to, message }) => {
                    let mut ranks = self.lock();
                    ranks[rank].heard = Some(Instant::now());
                    match (to, &message) {
                        (To::Hub, Message::Farewell { .. }) => {
                            ranks[rank].gone = true;
                            pass_on(&mut ranks, rank, &message);
                        }
                        (To::Hub, _) => {}
                        (To::Rank(to), _) => give(&mut ranks, to, &message),
                        (To::Others, _) => pass_on(&mut ranks, rank, &message),
                    }
                }
                Err(error) => break why_lost(&error),
            }
        };
        self.lost(rank, why);
    }

    /// Takes a process in that says who it is.
    fn welcome(&self, stream: &TcpStream) -> io::Result<usize> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_secs(2)))?;
        stream.set_read_timeout(Some(SILENCE))?;
        let Frame { message: Message::Hello { rank, world }, .. } = Frame::read(stream)? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        // From here on the pulse notices silence.
        stream.set_read_timeout(None)?;
        let mut ranks = self.lock();
        if world != ranks.len() || rank >= world || ranks[rank].heard.is_some() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        ranks[rank].writer = Some(stream.try_clone()?);
        ranks[rank].heard = Some(Instant::now());
        for message in std::mem::take(&mut ranks[rank].kept) {
            give(&mut ranks, rank, &message);
        }
        Ok(rank)
    }

    fn pulse(&self, stopped: bool) {
        let mut silent = Vec::new();
        {
            let mut ranks = self.lock();
            for rank in 0..ranks.len() {
                if ranks[rank].writer.is_some() {
                    if stopped {
                        ranks[rank].heard = Some(Instant::now());
                    }
                    give(&mut ranks, rank, &Message::Pulse);
                    if ranks[rank].heard.is_some_and(|h| h.elapsed() > SILENCE) {
                        silent.push(rank);
                    }
                }
            }
        }
        for rank in silent {
            let seconds = SILENCE.as_secs();
            self.lost(rank, format!("its process gave no sign for {seconds} s: stopped, starved or cut off"));
        }
    }

    fn lost(&self, rank: usize, why: String) {
        let mut ranks = self.lock();
        if let Some(writer) = ranks[rank].writer.take() {
            let _ = writer.shutdown(Shutdown::Both);
            let why = ranks[rank].unwritten.take().unwrap_or(why);
            if !ranks[rank].gone {
                pass_on(&mut ranks, rank, &Message::Ended(End::Cause(Cause::Failed { rank, why })));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Seat>> {
        self.ranks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pass_on(ranks: &mut [Seat], from: usize, message: &Message) {
    (0..ranks.len()).filter(|rank| *rank != from).for_each(|rank| give(ranks, rank, message));
}

fn give(ranks: &mut [Seat], to: usize, message: &Message) {
    let Some(seat) = ranks.get_mut(to) else { return };
    match &seat.writer {
        Some(writer) => {
            let given = Frame { to: To::Rank(to), message: message.clone() }.write(writer);
            // After half a message the rest of the connection means nothing. Its reader notices, and says why.
            if let Err(error) = given {
                let _ = writer.shutdown(Shutdown::Both);
                seat.unwritten.get_or_insert(why_lost(&error));
            }
        }
        None if seat.heard.is_none() => seat.kept.push(message.clone()),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Link;

    #[test]
    fn a_process_that_takes_no_messages_is_not_called_gone() {
        let hub = Hub::open(2).expect("opens");
        let link = Link::join(hub.addresses(), 0, 2, Duration::from_secs(60)).expect("joins");
        // Rank 1 says two things, and reads nothing: its buffers are full after a while.
        let silent = TcpStream::connect(hub.addresses().last().expect("an address")).expect("connects");
        let say = |to, message| Frame { to, message }.write(&silent).expect("written");
        say(To::Hub, Message::Hello { rank: 1, world: 2 });
        say(To::Rank(0), Message::Contribution { what: "give".into(), from: 1, bytes: vec![], share: true });
        link.gather("give", vec![0; 48 << 20]).expect("both gave");
        let Err(CommError::Ended(report)) = link.gather("go on", vec![]) else { panic!("rank 1 does not come") };
        let Cause::Failed { rank: 1, why } = &report.cause else { panic!("{:?}", report.cause) };
        assert_eq!(why, "its process takes no messages: stopped, starved or cut off");
    }
}
