//! A PostgreSQL server of the tests' own: Debian's programs, in a temporary folder, on a Unix socket. Where it is missing
//! the tests fail.
//!
//! A shell stands between the test and the server: when the test's end of its pipe is closed, however the test ended, it
//! stops the server by its process id and, unless it was told to keep it, removes the folder.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};

/// Debian puts the programs of each release into a folder of its own.
const RELEASES: &str = "/usr/lib/postgresql";
/// The release that the service is written for, or a later one.
const OLDEST: u32 = 15;

/// `$1` programs, `$2` folder, further arguments: the server's. It serves until standard input ends. A server that has only
/// just begun does not hear SIGQUIT: a shell's jobs begin with it ignored.
const SERVE: &str = r#"
bin=$1 dir=$2; shift 2
trap '' INT TERM
"$bin/postgres" -D "$dir/data" -k "$dir" "$@" </dev/null >>"$dir/log" 2>&1 &
pid=$!
echo $pid
keep=
read -r keep || :
kill -QUIT $pid 2>/dev/null
(sleep 10; kill -KILL $pid) 2>/dev/null &
late=$!
wait $pid
kill $late 2>/dev/null
[ -n "$keep" ] || rm -rf "$dir"
"#;

/// Whether what is written is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// For tests that do not end the server.
    None,
    /// As in production.
    Full,
}

/// A server. It ends with this value, or with the test's process.
pub struct Cluster {
    folder: PathBuf,
    options: Vec<String>,
    port: u16,
    shell: Option<(Child, ChildStdin)>,
    pid: rustix::process::Pid,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        match self.shell.take() {
            Some(shell) => end(shell),
            None => drop(std::fs::remove_dir_all(&self.folder)),
        }
    }
}

/// Waits for the end of a shell whose input has ended.
fn end((mut shell, stdin): (Child, ChildStdin)) {
    drop(stdin);
    let _ = shell.wait();
}

/// The server of all tests that need no other, with a schema for each vault.
pub fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| Shared { cluster: Cluster::start(Durability::None), next: AtomicU32::new(0) })
}

/// See [`shared`].
pub struct Shared {
    pub cluster: Cluster,
    next: AtomicU32,
}

impl Shared {
    /// `[database]` of a vault that nobody has.
    pub fn section(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        self.cluster.section(&format!("vault_{number}"))
    }
}

impl Cluster {
    /// Makes a cluster and starts its server.
    pub fn start(durability: Durability) -> Self {
        let folder = tempfile::Builder::new().prefix("pg").tempdir().expect("a temporary folder").keep();
        own(&folder);
        let bin = programs();
        let made = as_owner(&folder, &bin.join("initdb"))
            .args(["-D".as_ref(), folder.join("data").as_os_str()])
            .args(["-U", "keys", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"])
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut all: Vec<String> = vec!["-c".to_owned(), "listen_addresses=".to_owned()];
        if durability == Durability::None {
            all.extend(["-c", "fsync=off"].map(str::to_owned));
        }
        let mut cluster =
            Self { folder, options: all, port: 5432, shell: None, pid: rustix::process::getpid() };
        cluster.serve();
        cluster
    }

    /// Starts the server (again), and waits until it answers. After a `kill -9` it does not start until the last child of
    /// the old one is gone.
    pub fn serve(&mut self) {
        let served = (0..200).any(|_| {
            self.start_server();
            let answers = self.wait_for_answer();
            if !answers {
                self.stop();
            }
            answers
        });
        assert!(served, "{}", std::fs::read_to_string(self.folder.join("log")).unwrap_or_default());
    }

    fn start_server(&mut self) {
        let bin = programs();
        let mut shell = as_owner(&self.folder, Path::new("/bin/sh"))
            .args(["-c", SERVE, "serve"])
            .args([bin.as_os_str(), self.folder.as_os_str()])
            .args(&self.options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let stdin = shell.stdin.take().expect("it was asked for");
        let mut line = String::new();
        let mut output = BufReader::new(shell.stdout.take().expect("it was asked for"));
        output.read_line(&mut line).expect("the shell tells the server's id");
        let pid = line.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
        self.pid = pid.expect("a process id");
        self.shell = Some((shell, stdin));
    }

    /// Whether the server comes to answer, rather than to end.
    fn wait_for_answer(&self) -> bool {
        let mut ready = Command::new(programs().join("pg_isready"));
        ready
            .args(["-q", "-U", "keys", "-p", &self.port.to_string(), "-h"])
            .arg(&self.folder)
            .stdout(Stdio::null());
        while runs(self.pid) {
            if ready.status().is_ok_and(|status| status.success()) {
                return true;
            }
            wait_for_a_moment();
        }
        wait_for_a_moment();
        false
    }

    /// Serves with the settings in its folder, on a port of this machine beside its socket.
    pub fn serve_over_tcp(&mut self, port: u16) {
        self.options = ["-c", "listen_addresses=127.0.0.1", "-c", &format!("port={port}"), "-c", "ssl=on"]
            .map(str::to_owned)
            .to_vec();
        self.port = port;
        self.serve();
    }

    /// `kill -9` of the server: no child of it goes on, and what was not on the disk is gone.
    pub fn kill(&mut self) {
        rustix::process::kill_process(self.pid, rustix::process::Signal::KILL).expect("it runs");
        self.stop();
    }

    /// Ends the server by its shell, and keeps the folder.
    pub fn stop(&mut self) {
        if let Some((shell, mut stdin)) = self.shell.take() {
            let _ = stdin.write_all(b"keep\n");
            end((shell, stdin));
        }
    }

    /// `[database]` of a vault in this schema.
    pub fn section(&self, schema: &str) -> String {
        let folder = self.folder.display();
        format!("[database]\nurl = \"postgres:///postgres?user=keys&host={folder}\"\nschema = \"{schema}\"\n")
    }

    /// A connection of the test's own.
    pub async fn connect(&self, schema: &str) -> PgConnection {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(&self.folder)
            .username("keys")
            .database("postgres")
            .options([("search_path", schema)]);
        PgConnection::connect_with(&options).await.expect("the test's server answers")
    }

    /// The server's process.
    pub fn pid(&self) -> rustix::process::Pid {
        self.pid
    }

    /// The folder, which the server's user can read.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Whether a process is there and has not ended. (Not by its command line: in the midst of `execve` it has none.)
fn runs(pid: rustix::process::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}

/// Waits 20 ms, for the loops that wait for a condition.
#[allow(clippy::disallowed_methods, reason = "a pause between two looks, in a loop that has an end")]
fn wait_for_a_moment() {
    std::thread::sleep(std::time::Duration::from_millis(20));
}

fn programs() -> PathBuf {
    let releases = std::fs::read_dir(RELEASES).into_iter().flatten().flatten();
    let numbers = releases.filter_map(|release| release.file_name().to_str()?.parse::<u32>().ok());
    let newest = numbers.filter(|number| *number >= OLDEST).max();
    let newest = newest.expect("PostgreSQL 15 or later: install the packages of packages.txt (postgresql)");
    Path::new(RELEASES).join(newest.to_string()).join("bin")
}

/// PostgreSQL refuses to run as root: then the user of its package does.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Gives a file to the server's user.
pub fn own(folder: &Path) {
    if is_root() {
        let home = std::fs::metadata("/var/lib/postgresql").expect("the package's user has a home");
        std::os::unix::fs::chown(folder, Some(home.uid()), Some(home.gid())).expect("root may");
    }
}

fn as_owner(folder: &Path, program: &Path) -> Command {
    if !is_root() {
        let mut command = Command::new(program);
        command.current_dir(folder);
        return command;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program).current_dir(folder);
    command
}
