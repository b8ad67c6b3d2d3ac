//! Keys that the kernel keeps for users and sessions: no container has the machine's, and one whose user has no room for
//! more starts all the same where it can use none.

#![expect(unsafe_code, reason = "keys have no safe calls, and a thread alone becomes another user by none")]

use std::ffi::CString;
use std::io;
use std::sync::mpsc;

use windlass_runtime::{ContainerSpec, SandboxSpec, Seccomp};

use crate::bench::{Bench, Way, exec, on_each_way};

on_each_way! {
    a83_a_container_without_filter_has_no_key_of_the_machines,
}

/// `KEY_SPEC_THREAD_KEYRING`: it goes with the thread.
const OF_THREAD: i64 = -1;
/// `KEY_SPEC_USER_SESSION_KEYRING`: what a process has whose session has no keyring of its own.
const OF_USER_SESSIONS: i64 = -5;
/// `KEYCTL_JOIN_SESSION_KEYRING`: without a name, a new one.
const JOIN_SESSION: i64 = 1;
/// `KEYCTL_SETPERM`.
const SET_PERMISSIONS: i64 = 5;
/// `KEYCTL_UNLINK`.
const UNLINK: i64 = 9;
/// Who possesses the key may do all with it, and nobody else anything.
const POSSESSOR: i64 = 0x3f00_0000;

fn add_key(name: &str, bytes: usize, keyring: i64) -> io::Result<i64> {
    let (kind, name) = (CString::new("user").expect("no NUL"), CString::new(name).expect("no NUL"));
    let payload = vec![1_u8; bytes];
    // SAFETY: two strings that end with NUL and as many bytes as is said, all alive until the call returns.
    let key = unsafe {
        libc::syscall(libc::SYS_add_key, kind.as_ptr(), name.as_ptr(), payload.as_ptr(), payload.len(), keyring)
    };
    if key < 0 { Err(io::Error::last_os_error()) } else { Ok(key) }
}

fn keyctl(operation: i64, key: i64, argument: i64) {
    // SAFETY: the operations used here take numbers, not pointers.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, operation, key, argument) };
    assert!(done >= 0, "{}", io::Error::last_os_error());
}

async fn a83_a_container_without_filter_has_no_key_of_the_machines(way: Way) {
    let bench = Bench::new(way).await;
    let name = format!("windlass-test-{}-{way:?}", std::process::id());
    let key = add_key(&name, 10, OF_USER_SESSIONS).expect("a key");
    keyctl(SET_PERMISSIONS, key, POSSESSOR);
    let seen = std::fs::read_to_string("/proc/keys").expect("keys");
    assert!(seen.contains(&name), "this process has it: {seen}");
    let sandbox = bench.sandbox("s").await;
    // Such a container sees what keys it has.
    let spec = ContainerSpec {
        seccomp: Seccomp::Unconfined,
        masked_paths: Some(Vec::new()),
        ..bench.shell("c", "cat /proc/keys; echo end; exec sleep 1000")
    };
    sandbox.create_container(spec).await.expect("create");
    sandbox.start("c").await.expect("start");
    let first = crate::bench::until("it speaks", || Some(bench.output("c")).filter(|said| said.contains("end"))).await;
    let (_, later, _) = exec(&sandbox, "c", "cat /proc/keys").await;
    keyctl(UNLINK, key, OF_USER_SESSIONS);
    for (who, said) in [("the first process", first), ("an exec", later)] {
        assert!(said.contains("keyring") && !said.contains(&name), "{who}: {said}");
    }
}

/// A thread that is another user until it is told to end, and has as many bytes of keys as that user may.
fn take_all_keys(uid: u32) -> mpsc::Sender<()> {
    let (begun, ready) = mpsc::channel();
    let (end, ended) = mpsc::channel();
    std::thread::spawn(move || {
        // SAFETY: the raw call changes this thread alone and takes numbers only.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        let mut bytes = 16_384;
        let mut number = 0;
        while bytes > 0 {
            match add_key(&format!("k{number}"), bytes, OF_THREAD) {
                Ok(_) => number += 1,
                Err(error) if error.raw_os_error() == Some(libc::EDQUOT) => bytes /= 2,
                Err(error) => panic!("{error}"),
            }
        }
        begun.send(number).expect("it is waited for");
        // It ends when the other side is dropped.
        ended.recv().ok();
    });
    let number = ready.recv().expect("the thread has taken them");
    assert!(number > 0, "there were some to take");
    end
}

#[test]
fn a83_who_has_no_room_for_keys_starts_where_it_can_use_none() {
    // The kernel looks at the room of those only who have a session's keyring already, as under systemd.
    let thread = std::thread::spawn(|| {
        keyctl(JOIN_SESSION, 0, 0);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(without_room());
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

async fn without_room() {
    let bench = Bench::new(Way::Embedded).await;
    let spec = SandboxSpec { user_namespace: true, ..bench.spec("s") };
    let sandbox = bench.runtime().create_sandbox(spec).await.expect("a sandbox");
    let taken = take_all_keys(sandbox.user_ids().expect("it has ids"));
    let filtered = bench.run(&sandbox, bench.shell("filtered", "echo runs")).await;
    assert_eq!((filtered.code, bench.output("filtered").as_str()), (0, "runs\n"));
    let unconfined = |id: &str| ContainerSpec { seccomp: Seccomp::Unconfined, ..bench.shell(id, "echo runs") };
    sandbox.create_container(unconfined("free")).await.expect("create");
    let refused = sandbox.start("free").await.expect_err("there is no room").to_string();
    assert!(refused.contains("could not make a session keyring"), "{refused}");
    drop(taken);
    // The kernel gives the room back when it comes to it.
    for number in 0.. {
        let id = format!("again{number}");
        sandbox.create_container(unconfined(&id)).await.expect("create");
        match sandbox.start(&id).await {
            Ok(()) => break,
            Err(refused) => assert!(number < 200, "there is room again: {refused}"),
        }
    }
}
