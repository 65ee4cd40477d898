//! What the service manager is told: that the server is ready, that it stops, and that it is alive.
//!
//! systemd names a datagram socket in `NOTIFY_SOCKET` (`Type=notify`), and in `WATCHDOG_USEC` how often it wants a sign of life. Without
//! the first nothing is said. A sign comes from the runtime that serves clients: it says that tasks are run, not that an epoch is quick.
//! **Reference**: sd_notify(3).

use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use tokio::task::JoinSet;

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    socket: Option<UnixDatagram>,
    _signs: JoinSet<()>,
}

impl Notify {
    /// The service manager of this process's environment.
    pub(crate) fn from_env() -> Self {
        let watchdog = match std::env::var("WATCHDOG_PID") {
            // Meant for another process of the unit.
            Ok(pid) if pid != std::process::id().to_string() => None,
            _ => std::env::var("WATCHDOG_USEC").ok(),
        };
        Self::new(std::env::var("NOTIFY_SOCKET").ok().as_deref(), watchdog.as_deref())
    }

    /// A manager at a socket that wants a sign of life every so many microseconds.
    fn new(socket: Option<&str>, watchdog: Option<&str>) -> Self {
        let Some(address) = socket else { return Self::default() };
        let socket = match connect(address) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, address, "the service manager cannot be told anything");
                return Self::default();
            }
        };
        let mut signs = JoinSet::new();
        let interval = watchdog.and_then(|text| text.parse().ok()).filter(|interval| *interval > 0).map(Duration::from_micros);
        if let (Some(interval), Ok(socket)) = (interval, socket.try_clone()) {
            signs.spawn(async move {
                // Twice as often as is asked for, as the manual has it.
                let mut ticks = tokio::time::interval(interval / 2);
                loop {
                    ticks.tick().await;
                    tell(&socket, "WATCHDOG=1");
                }
            });
        }
        Self { socket: Some(socket), _signs: signs }
    }

    /// Clients can connect now.
    pub(crate) fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={}", status.replace('\n', " ")));
    }

    /// The server finishes what runs.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=finishing what runs");
    }

    fn say(&self, text: &str) {
        if let Some(socket) = &self.socket {
            tell(socket, text);
        }
    }
}

/// A manager that does not listen is not worth an end of the service.
fn tell(socket: &UnixDatagram, text: &str) {
    if let Err(error) = socket.send(text.as_bytes()) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

fn connect(address: &str) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = address.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt;
        socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)?;
        socket.set_nonblocking(true)?;
        return Ok(socket);
    }
    socket.connect(address)?;
    // A manager that hangs must not hold the server up.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_manager_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let next = || {
            let mut buffer = [0; 200];
            let length = manager.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        let notify = Notify::new(path.to_str(), None);
        notify.ready("serving\nhere");
        assert_eq!(next(), "READY=1\nSTATUS=serving here");
        notify.stopping();
        assert_eq!(next(), "STOPPING=1\nSTATUS=finishing what runs");
        let _watched = Notify::new(path.to_str(), Some("20000"));
        assert_eq!((next(), next()), ("WATCHDOG=1".to_string(), "WATCHDOG=1".to_string()));
        Notify::new(Some("/nosuch/socket"), None).ready("");
        Notify::new(None, Some("1")).ready("");
    }
}
