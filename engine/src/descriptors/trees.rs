//! The tests of whole trees: what is shared stays shared, and a hostile image is only an error.

use super::table::{Table, collect};
use super::trip::{Bare, stub, us};
use super::{
    DescriptorImage, DescriptorsImage, InFlightImage, Made, ObjectImage, capture, check, connect,
    create, examine, install, outline,
};
use crate::batch::Batch;
use crate::kinds::{DescriptionImage, Rules, Tree as _};
use crate::sys;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

/// A python program with a child of its own; both end when this is dropped.
struct Program {
    leader: Child,
    pids: Vec<i32>,
}

impl Program {
    /// The script forks where it likes; every process of it prints its number when it is ready,
    /// the leader first.
    fn start(script: &str) -> Self {
        // What we were started with is none of the test's business.
        let start = "import os, socket, select, fcntl, time; os.closerange(3, 1024)";
        let text = format!("{start}\n{script}\ntime.sleep(60)\n");
        let mut leader = Command::new("python3")
            .args(["-c", &text])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let lines = BufReader::new(leader.stdout.take().unwrap()).lines();
        let pids: Vec<i32> = lines.map(|line| line.unwrap().parse().unwrap()).collect();
        Self { leader, pids }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.leader.id().cast_signed());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.leader.wait();
    }
}

/// Prints the numbers of the leader and of the child, and lets go of the pipe they go through.
const READY: &str = "
def ready():
    print(os.getpid(), flush=True)
    null = os.open('/dev/null', os.O_RDWR); os.dup2(null, 1); os.close(null)
";

const SHARING: &str = "
r, w = os.pipe()
one, two = os.eventfd(1), os.eventfd(2)
again = os.dup(one)
fcntl.fcntl(again, fcntl.F_SETFD, 0)
a, b = socket.socketpair()
a.send(b'for b')
file = os.open('/etc/passwd', os.O_RDONLY); os.lseek(file, 7, 0)
os.write(w, b'in the pipe')
epoll = select.epoll(); epoll.register(one, select.EPOLLIN); epoll.register(a)
asleep = os.fork()
if asleep == 0:
    while os.getppid() and not os.path.exists(f'/proc/{os.getppid()}/fd/63'): time.sleep(.001)
    own = os.eventfd(3); os.close(two); os.dup2(w, 40)
    ready()
else:
    ready(); os.dup2(0, 63)
";

/// Python numbers them in the order of the script.
const ONE: i32 = 5;
const TWO: i32 = 6;
const AGAIN: i32 = 7;

fn sharing() -> Program {
    Program::start(&format!("{READY}{SHARING}"))
}

#[test]
fn dup_and_fork_share_a_description_and_nothing_else_does() {
    let program = sharing();
    let table = collect(&program.pids).unwrap();
    let [parent, child] = program.pids[..] else { panic!("{:?}", program.pids) };
    let judged = examine::Judged { table: &table, rules: &Rules::default() };
    let one = judged.description_at(parent, ONE).unwrap();
    assert_eq!(judged.description_at(parent, AGAIN), Some(one));
    assert_eq!(judged.description_at(child, ONE), Some(one));
    assert_eq!(judged.descriptors(one).len(), 4);
    assert_ne!(judged.description_at(parent, TWO), Some(one));
    // Closed by the child, whose own eventfd has the number now.
    assert_ne!(judged.description_at(child, TWO), judged.description_at(parent, TWO));
    let pipe = judged.description_at(child, 40);
    assert_eq!(pipe, judged.description_at(parent, 4));
}

#[test]
fn a_tree_comes_back_with_what_it_shared() {
    let program = sharing();
    let before = collect(&program.pids).unwrap();
    let findings = examine(&before, &Rules::default());
    assert_eq!(findings.refusals, []);
    let image = capture(&before, &Rules::default()).unwrap();
    assert_eq!(check(&outline(&before, &Rules::default()).unwrap(), &[]).unwrap(), []);
    let made = create(&image, &Bare).unwrap();
    let stubs: Vec<_> = program.pids.iter().map(|&pid| stub(&image, &made, pid)).collect();
    drop(made);

    let after = collect(&stubs.iter().map(|stub| stub.pid()).collect::<Vec<_>>()).unwrap();
    assert_eq!(shape(&after, &stubs[0].pid()), shape(&before, &program.pids[0]));
    let again = capture(&after, &Rules::default()).unwrap();
    // An epoll names the process of what it watches, and a longer number takes more bytes.
    let length = |one: &ObjectImage| if one.kind == "epoll" { 0 } else { one.bytes.len() };
    let contents = |image: &DescriptorsImage| -> Vec<(String, usize)> {
        image.objects.iter().map(|one| (one.kind.clone(), length(one))).collect()
    };
    assert_eq!(contents(&again), contents(&image));
    assert_eq!(again.descriptions, image.descriptions);
}

/// Every descriptor as (is it the leader's, number, close-on-exec, description).
fn shape(table: &Table, leader: &i32) -> Vec<(bool, i32, bool, usize)> {
    let shape = |one: &super::table::Descriptor| {
        (one.pid == *leader, one.fd, one.close_on_exec, one.description)
    };
    table.descriptors.iter().map(shape).collect()
}

#[test]
fn a_thread_with_a_table_of_its_own_is_refused() {
    let (tell, told) = std::sync::mpsc::channel();
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).unwrap();
        tell.send(()).unwrap();
        let _ = wait.recv();
    });
    told.recv().unwrap();
    let findings = examine(&Table::of(us(), &[]).unwrap(), &Rules::default());
    drop(release);
    thread.join().unwrap();
    assert!(findings.refusals[0].reason.contains("of its own"), "{findings:?}");
}

#[test]
fn who_gets_the_signal_and_which_comes_back() {
    use std::os::fd::AsFd as _;
    let [one, two] = sys::sock::pair(libc::AF_UNIX, libc::SOCK_STREAM).unwrap();
    let owner = sys::fd::SignalOwner { kind: 1, id: us() };
    sys::fd::set_signal_owner(one.as_fd(), owner).unwrap();
    sys::fd::set_owner_signal(one.as_fd(), libc::SIGUSR1).unwrap();
    let trip = super::trip::round_trip(&[&one, &two]);
    let [first, second] = trip.after.descriptions[..] else { panic!("two ends") };
    let signals = (first.owner_type, first.owner, first.owner_signal, second.owner_type);
    assert_eq!(signals, (1, us(), libc::SIGUSR1, -1));
}

#[test]
fn a_process_that_is_gone_is_left_out() {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let table = collect(&[child.id().cast_signed(), us()]).unwrap();
    assert_eq!(table.pids().collect::<Vec<_>>(), [us()]);
}

/// An image of one eventfd that is in order.
fn sound() -> DescriptorsImage {
    let eventfd = sys::fd::eventfd(5, 0).unwrap();
    let mut image =
        capture(&Table::of(us(), &[eventfd.as_raw_fd()]).unwrap(), &Rules::default()).unwrap();
    image.descriptors[0].fd = 3;
    image
}

fn refused(break_it: impl FnOnce(&mut DescriptorsImage)) -> String {
    let mut image = sound();
    break_it(&mut image);
    let error = create(&image, &Bare).map(|_| ()).unwrap_err();
    format!("{error}: {}", error.source)
}

#[test]
fn a_hostile_image_is_an_error_that_names_the_object() {
    assert!(create(&sound(), &Bare).is_ok());
    type Break = fn(&mut DescriptorsImage);
    let cases: [(&str, Break); 13] = [
        ("object 0", |image| image.objects[0].kind = "perpetuum mobile".to_owned()),
        ("object 0", |image| image.objects[0].version = 99),
        ("object 0", |image| image.objects[0].version = 0),
        ("object 0", |image| image.objects.push(image.objects[0].clone())),
        ("eventfd", |image| image.objects[0].bytes = vec![0xff; 9]),
        ("object 0", |image| image.descriptions[0].object = 7),
        ("description 0", |image| image.descriptions.push(image.descriptions[0])),
        ("eventfd", |image| {
            let second = DescriptionImage { id: 1, ..image.descriptions[0] };
            image.descriptions.push(second);
        }),
        ("fd 3", |image| image.descriptors[0].description = 9),
        ("fd 3", |image| image.descriptors.push(image.descriptors[0].clone())),
        ("fd -1", |image| image.descriptors[0].fd = -1),
        ("object 0", |image| image.descriptors.clear()),
        ("object 0", |image| {
            image.descriptors.clear();
            image.in_flight = vec![InFlightImage { description: 0, carrier: 0 }];
        }),
    ];
    for (name, break_it) in cases {
        let message = refused(break_it);
        assert!(message.contains(name), "{name} in {message}");
    }
}

#[test]
fn every_kind_takes_nonsense_without_a_panic() {
    for kind in crate::kinds::ALL {
        for bytes in [vec![], vec![0x08, 0x01], vec![0x0a, 0x00], vec![0x12, 0x02, 0x08, 0x7f]] {
            let object =
                ObjectImage { id: 0, kind: kind.name.to_owned(), version: kind.version, bytes };
            let mut image = DescriptorsImage { objects: vec![object], ..sound() };
            image.descriptions.push(DescriptionImage { id: 1, role: 9, ..image.descriptions[0] });
            image.descriptions[0].flags = i32::MAX & !libc::O_PATH;
            let _ = create(&image, &Bare);
            let _ = check(&image, &[]);
            let _ = connect(&image, us(), &mut Batch::new());
        }
    }
}

#[test]
fn our_own_descriptor_may_not_be_where_one_is_needed() {
    let image = sound();
    let made = create(&image, &Bare).unwrap();
    let pid = image.descriptors[0].pid;
    assert!(install(&image, &made, pid, 2, &mut Batch::new()).is_err());
    assert!(install(&image, &made, pid, 3, &mut Batch::new()).is_err());
    assert!(install(&image, &made, pid, 4, &mut Batch::new()).is_ok());
    assert!(install(&image, &Made::default(), pid, 4, &mut Batch::new()).is_err());
}

#[test]
fn numbers_needed_counts_one_process() {
    let mut image = sound();
    let pid = image.descriptors[0].pid;
    image.descriptors.push(DescriptorImage {
        pid: pid + 1,
        fd: 99,
        ..image.descriptors[0].clone()
    });
    assert_eq!(super::numbers_needed(&image, pid), 4);
    assert_eq!(super::numbers_needed(&image, pid + 1), 100);
    assert_eq!(super::numbers_needed(&image, pid + 2), 0);
}
