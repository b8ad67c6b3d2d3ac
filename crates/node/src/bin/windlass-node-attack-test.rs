//! What a container of this crate's tests does to its machine that no shell can: threads, sockets and watches of files, as
//! many as it gets. It says how many it has got, and keeps them until it is told to end.
//!
//! `threads MOST`, `sockets MOST`, `watches MOST`, `files DIRECTORY MOST`

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit};

/// What a thread that does nothing needs.
const STACK_BYTES: usize = 64 << 10;
/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(100_000);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let most = arguments.last().and_then(|most| most.parse().ok()).expect("the last argument is a number");
    match arguments[0].as_str() {
        "threads" => threads(most),
        "sockets" => sockets(most),
        "watches" => open(most, || Ok(rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC)?)),
        "files" => files(Path::new(&arguments[1]), most),
        other => panic!("{other} is no attack"),
    }
}

fn threads(most: usize) {
    let mut all = Vec::new();
    let why = loop {
        if all.len() == most {
            break "enough".to_owned();
        }
        match std::thread::Builder::new().stack_size(STACK_BYTES).spawn(|| std::thread::sleep(FOR_EVER)) {
            Ok(thread) => all.push(thread),
            Err(error) => break error.to_string(),
        }
    };
    println!("got {}: {why}", all.len());
    std::thread::sleep(FOR_EVER);
}

/// One process may have so many files, but another may have as many again.
fn sockets(most: usize) {
    let each = all_files();
    let mut others: Vec<Child> = Vec::new();
    let mut left = most;
    while left > each {
        let other = Command::new("/proc/self/exe").args(["sockets", &each.to_string()]).stdout(Stdio::piped()).spawn();
        let mut other = other.expect("another process");
        let mut said = String::new();
        BufReader::new(other.stdout.take().expect("a pipe")).read_line(&mut said).expect("it speaks");
        print!("another {said}");
        others.push(other);
        left -= each;
    }
    open(left, || Ok(rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?));
}

/// Raises the number of files this process may have to the most; gives it, less those that are open.
fn all_files() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let whole = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, whole).expect("up to the hard limit everybody may");
    usize::try_from(limit.maximum.unwrap_or(1 << 20)).expect("it fits") - 10
}

fn open(most: usize, one: impl Fn() -> std::io::Result<OwnedFd>) {
    all_files();
    let mut all = Vec::new();
    let why = loop {
        if all.len() == most {
            break "enough".to_owned();
        }
        match one() {
            Ok(fd) => all.push(fd),
            Err(error) => break error.to_string(),
        }
    };
    println!("got {}: {why}", all.len());
    std::thread::sleep(FOR_EVER);
}

fn files(directory: &Path, most: usize) {
    for number in 0..most {
        if let Err(error) = File::create(directory.join(number.to_string())) {
            println!("got {number}: {error}");
            break;
        }
    }
    std::thread::sleep(FOR_EVER);
}
