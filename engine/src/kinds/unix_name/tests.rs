//! Names that are bound, and names that mean harm.

use super::*;

fn socket() -> OwnedFd {
    sys::sock::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0).unwrap()
}

fn name(bytes: &[u8], path: Option<&str>) -> Name {
    let file = path.map(|path| SocketFile { path: path.to_owned(), mode: 0o640, uid: 12, gid: 34 });
    Name { bytes: bytes.to_vec(), file }
}

fn local_name(socket: &OwnedFd) -> Vec<u8> {
    trimmed(&sys::sock::local_address(socket.as_fd()).unwrap()[2..])
}

#[test]
fn a_name_is_looked_up_from_where_it_leads_to_its_file() {
    let base = |bytes: &str, path: &str| name(bytes.as_bytes(), Some(path));
    let relative = base("x/sock", "/var/x/sock");
    assert_eq!(relative.base(), Some(Base::Directory("/var/", As::WorkingDirectory)));
    let dotted = base("./sock", "/var/sock");
    assert_eq!(dotted.base(), Some(Base::Directory("/var/", As::WorkingDirectory)));
    let jailed = base("/run/sock", "/srv/jail/run/sock");
    assert_eq!(jailed.base(), Some(Base::Directory("/srv/jail", As::Root)));
    assert_eq!(base("/run/sock", "/run/sock").base(), Some(Base::Host));
    assert_eq!(base("ock", "/run/sock").base(), None);
    assert_eq!(base("/nonexistent/sock", "/run/sock").base(), None);
}

#[test]
fn its_file_has_its_owner_and_its_permissions() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("sock");
    let text = path.to_str().unwrap();
    for bytes in [text, "sock"] {
        let (one, bound) = (socket(), name(bytes.as_bytes(), Some(text)));
        assert_eq!(bound.lacks(libc::SOCK_STREAM), None);
        bound.bind(one.as_fd()).unwrap();
        assert_eq!(local_name(&one), bytes.as_bytes());
        let file = fs::symlink_metadata(&path).unwrap();
        assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o640, 12, 34));
    }
}

#[test]
fn what_a_socket_left_behind_is_replaced_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("sock");
    let bound = name(path.as_os_str().as_bytes(), path.to_str());
    let first = socket();
    bound.bind(first.as_fd()).unwrap();
    let (why, _) = bound.lacks(libc::SOCK_STREAM).unwrap();
    assert!(why.contains("is in use here"), "{why}");
    assert!(bound.bind(socket().as_fd()).is_err());
    drop(first);
    assert_eq!(bound.lacks(libc::SOCK_STREAM), None);
    bound.bind(socket().as_fd()).unwrap();

    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    assert!(bound.lacks(libc::SOCK_STREAM).unwrap().0.contains("something else"));
    assert!(bound.bind(socket().as_fd()).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_name_without_a_file_is_bound_where_nobody_sees_it() {
    for bytes in [&b"/run/nowhere/sock"[..], b"relative", b"some/where"] {
        let one = socket();
        name(bytes, None).bind(one.as_fd()).unwrap();
        assert_eq!(local_name(&one), bytes);
        let path = Path::new(OsStr::from_bytes(bytes));
        assert!(fs::symlink_metadata(path).is_err());
    }
}

#[test]
fn hostile_names_are_errors() {
    let home = tempfile::tempdir().unwrap();
    let magic = format!("/proc/self/root{}/sock", home.path().display());
    for (bytes, path) in [
        (&b""[..], None),
        (&[b'x'; 109], None),
        (b"sock", Some("/proc/self/cwd/sock")),
        (magic.as_bytes(), Some(&*magic)),
        (b"sock", Some("relative/sock")),
        (b"../sock", Some("/run/../sock")),
        (b"/etc/other", Some("/run/sock")),
    ] {
        assert!(name(bytes, path).bind(socket().as_fd()).is_err(), "{bytes:?}");
    }
    assert!(fs::read_dir(home.path()).unwrap().next().is_none());
}

#[test]
fn a_removed_socket_can_still_be_reached() {
    let (listener, client) = (socket(), socket());
    name(b"/gone/sock", None).bind(listener.as_fd()).unwrap();
    sys::sock::listen(listener.as_fd(), 1).unwrap();
    let way = Way::to(listener.as_fd()).unwrap();
    sys::sock::connect(client.as_fd(), &way.address).unwrap();
}
