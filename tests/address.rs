//! Addresses read and print as documented, and nothing anyone may type breaks the parser.

use proptest::prelude::*;
use ringway::{
    Ring, Wait,
    segment::{Key, Name},
    transport::{Address, Host, LogLock, Priority, Target, UnixKind, UnixName},
};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

fn parse(text: &str) -> Address {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn posix(name: &str) -> Target {
    Target::Segment(Name::Posix(name.to_owned()))
}

fn file(path: &[u8]) -> Target {
    Target::Segment(Name::File(PathBuf::from(OsStr::from_bytes(path))))
}

fn sysv(path: &str, id: u8) -> Target {
    Target::Segment(Name::SysV(Key::Path { path: PathBuf::from(path), id }))
}

#[test]
fn every_scheme_names_its_target() {
    for (text, target) in [
        ("shm:///orders", posix("orders")),
        ("shm:///50%25%20off", posix("50% off")),
        ("sysv:///run/orders?id=7", sysv("/run/orders", 7)),
        ("sysv:///run/orders", sysv("/run/orders", 1)),
        ("sysv:?key=0x51", Target::Segment(Name::SysV(Key::Raw(0x51)))),
        ("sysv:?key=0xffffffff", Target::Segment(Name::SysV(Key::Raw(-1)))),
        ("file:///data/orders.ring", file(b"/data/orders.ring")),
        ("file:///data/%ff%3F", file(b"/data/\xff?")),
        ("anon:orders", Target::Anonymous("orders".to_owned())),
        ("memfd:///run/orders.sock", Target::Memfd("/run/orders.sock".into())),
        ("auto:///orders", Target::Auto("orders".to_owned())),
        ("pipe:", Target::Pipe),
        ("fd://3", Target::Descriptor(3)),
        ("fifo:///run/orders", Target::Fifo("/run/orders".into())),
        ("pty:///run/orders", Target::Terminal("/run/orders".into())),
        ("mq:///orders?priority=7", Target::PosixQueue { name: "orders".to_owned(), priority: Priority::Fixed(7) }),
        ("mq:///orders?priority=tag", Target::PosixQueue { name: "orders".to_owned(), priority: Priority::Tag }),
        ("sysvmq:?key=0x51&type=3", Target::SysVQueue { key: Key::Raw(0x51), kind: Some(3) }),
        ("sysvmq:///q", Target::SysVQueue { key: Key::Path { path: "/q".into(), id: 1 }, kind: None }),
        ("unix:///s", Target::Unix { name: UnixName::Path("/s".into()), kind: UnixKind::Stream }),
        ("unix:@s?type=dgram", Target::Unix { name: UnixName::Abstract("s".to_owned()), kind: UnixKind::Datagram }),
        ("tcp://LocalHost:7", Target::Tcp(Host { name: "localhost".to_owned(), port: 7 })),
        ("udp://[0:0::1]:65535", Target::Udp(Host { name: "::1".to_owned(), port: 65_535 })),
        ("signal://4711?sig=RTMIN+30", Target::Signal { pid: Some(4711), number: 30 }),
        ("signal://self", Target::Signal { pid: None, number: 0 }),
        (
            "log:///l?reader=me&lock=ofd",
            Target::Log { path: "/l".into(), lock: LogLock::Ofd, reader: Some("me".to_owned()) },
        ),
    ] {
        assert_eq!(parse(text).target(), &target, "{text}");
    }
}

#[test]
fn options_are_read_and_absent_ones_are_none() {
    let address = parse("shm:///a?persist=yes&perm=0640&wait=sem&max_message=64KiB&capacity=4MiB&ring=spsc");
    assert_eq!(address.ring(), Some(Ring::Spsc));
    assert_eq!(address.capacity(), Some(4 << 20));
    assert_eq!(address.max_message(), Some(64 << 10));
    assert_eq!(address.wait(), Some(Wait::Semaphore));
    assert_eq!(address.perm(), Some(0o640));
    assert_eq!(address.persist(), Some(true));

    let bare = parse("shm:///a");
    assert_eq!((bare.ring(), bare.capacity(), bare.max_message()), (None, None, None));
    assert_eq!((bare.wait(), bare.perm(), bare.persist()), (None, None, None));
}

#[test]
fn addresses_print_in_normal_form() {
    for (text, printed) in [
        ("shm:///orders", "shm:///orders"),
        ("shm:///a?wait=spin&capacity=4096KiB", "shm:///a?capacity=4MiB&wait=spin"),
        ("shm:///a?perm=7&persist=no", "shm:///a?perm=0007&persist=no"),
        ("shm:///%6frders%20%c3%A4", "shm:///orders%20%C3%A4"),
        ("shm:///ä", "shm:///%C3%A4"),
        ("sysv:///run/q?id=1&wait=futex", "sysv:///run/q?wait=futex"),
        ("sysv:///run/q?wait=futex&id=255", "sysv:///run/q?id=255&wait=futex"),
        ("sysv:?wait=futex&key=0xDEADBEEF", "sysv:?key=0xdeadbeef&wait=futex"),
        ("file:////data/./x//y/", "file:///data/x/y"),
        ("file:///data/../x%2Fy", "file:///data/../x/y"),
        ("anon:a?ring=spsc&max_message=0", "anon:a?ring=spsc&max_message=0B"),
        ("memfd:////run//x/?connect=5000ms&ring=mpmc", "memfd:///run/x?ring=mpmc&connect=5s"),
        ("fd://007", "fd://7"),
        ("mq:///q?persist=yes&priority=0", "mq:///q?persist=yes"),
        ("sysvmq:?type=3&key=0x51&framing=none", "sysvmq:?key=0x51&type=3&framing=none"),
        ("unix:@a%20b?framing=lines&type=stream", "unix:@a%20b?framing=lines"),
        ("tcp://[0:0:0:0:0:0:0:1]:7?capacity=1MiB", "tcp://[::1]:7?capacity=1MiB"),
        ("signal://self?sig=RTMIN+0", "signal://self"),
        ("log:///l?lock=flock&reader=%61", "log:///l?reader=a"),
        ("shm:///a?max_deliveries=15&producers=64&ring=mpmc", "shm:///a?ring=mpmc&producers=64&max_deliveries=15"),
    ] {
        assert_eq!(parse(text).to_string(), printed, "{text}");
    }
}

#[test]
fn errors_say_what_is_wrong_and_what_is_allowed() {
    let schemes = "allowed are shm:///name, sysv:///path?id=7 or sysv:?key=0x51, file:///path, anon:name, memfd:///path, \
                   auto:///name, pipe:, fd://number, fifo:///path, pty:///path, mq:///name, sysvmq:///path?id=7 or \
                   sysvmq:?key=0x51, unix:///path or unix:@name, tcp://host:port, udp://host:port, \
                   signal://pid?sig=RTMIN+1, log:///path";
    let options = "allowed here are ring, producers, max_deliveries, wait, perm, persist, capacity, max_message";
    let sysv = "sysv: is written sysv:///path?id=7 or sysv:?key=0x51, never both";
    let host = |text| format!("{text:?} is no host:port, such as 127.0.0.1:7000, [::1]:7000 or localhost:7000");
    for (text, problem) in [
        ("", &*format!("it has no scheme; {schemes}")),
        ("orders", &format!("it has no scheme; {schemes}")),
        ("orders?a:b", &format!("it has no scheme; {schemes}")),
        ("dmabuf:///x", &format!("unknown scheme \"dmabuf\"; {schemes}")),
        ("SHM:///x", &format!("unknown scheme \"SHM\"; {schemes}")),
        ("shm:x", "shm: is written shm:///name"),
        ("shm://x", "shm: is written shm:///name"),
        ("shm:///", "the name is empty"),
        ("shm:///?wait=spin", "the name is empty"),
        ("shm:///a/b", "the name \"a/b\" has a slash in it"),
        ("shm:///a%2Fb", "the name \"a/b\" has a slash in it"),
        ("shm:///..", "\"..\" can't be a name"),
        ("shm:///%ff", "the name \"%ff\" is not UTF-8"),
        ("shm:///a%00", "a name or path can't contain a zero byte"),
        ("shm:///a%2", "after % come two hexadecimal digits; % itself is %25"),
        ("shm:///a%é", "after % come two hexadecimal digits; % itself is %25"),
        ("shm:///a&wait=spin", "'&' is written %26 in a name or path"),
        ("shm:///a#b", "'#' is written %23 in a name or path"),
        ("anon:", "the name is empty"),
        ("anon:///a", "the name \"///a\" has a slash in it"),
        ("file:x", "file: is written file:///path"),
        ("file://x/y", "file: is written file:///path"),
        ("file:///", "the path \"/\" names no file"),
        ("file:///a/..", "the path \"/a/..\" names no file"),
        ("sysv:", sysv),
        ("sysv:?id=7", sysv),
        ("sysv:///x?key=0x51", sysv),
        ("sysv:x?key=0x51", sysv),
        ("sysv:?key=0x51&id=7", sysv),
        ("sysv:///x?id=0", "id=0 is not a number from 1 to 255"),
        ("sysv:///x?id=256", "id=256 is not a number from 1 to 255"),
        ("sysv:///x?id=+7", "id=+7 is not a number from 1 to 255"),
        ("sysv:?key=0x0", "key=0x0 is not a hexadecimal number from 0x1 to 0xffffffff"),
        ("sysv:?key=81", "key=81 is not a hexadecimal number from 0x1 to 0xffffffff"),
        ("sysv:?key=0x+1", "key=0x+1 is not a hexadecimal number from 0x1 to 0xffffffff"),
        ("sysv:?key=0x100000000", "key=0x100000000 is not a hexadecimal number from 0x1 to 0xffffffff"),
        ("shm:///a?", &format!("\"\" is not a key=value; {options}")),
        ("shm:///a?wait=spin&", &format!("\"\" is not a key=value; {options}")),
        ("shm:///a?spin", &format!("\"spin\" is not a key=value; {options}")),
        ("shm:///a?size=4MiB", &format!("unknown key \"size\"; {options}")),
        ("shm:///a?id=7", &format!("unknown key \"id\"; {options}")),
        (
            "anon:a?perm=0600",
            "unknown key \"perm\"; allowed here are ring, producers, max_deliveries, wait, capacity, max_message",
        ),
        ("shm:///a?wait=spin&wait=spin", "wait is given twice"),
        ("shm:///a?ring=mpsc", "ring: \"mpsc\" is not a kind of ring; allowed are spsc and mpmc"),
        ("shm:///a?producers=0", "producers=0 is not a number from 1 to 64"),
        ("shm:///a?producers=65", "producers=65 is not a number from 1 to 64"),
        ("shm:///a?max_deliveries=16", "max_deliveries=16 is not a number from 1 to 15"),
        ("shm:///a?producers=+1", "producers=+1 is not a number from 1 to 64"),
        (
            "shm:///a?wait=nap",
            "wait: \"nap\" is not a way to wait; allowed are spin, futex, sem, named-sem, sysv-sem, eventfd, fifo",
        ),
        ("shm:///a?perm=0800", "perm=0800 is not an octal number of at most 0777"),
        ("shm:///a?perm=01000", "perm=01000 is not an octal number of at most 0777"),
        ("shm:///a?perm=+600", "perm=+600 is not an octal number of at most 0777"),
        ("shm:///a?perm=", "perm= is not an octal number of at most 0777"),
        ("shm:///a?persist=true", "persist=true is neither persist=yes nor persist=no"),
        ("memfd:x", "memfd: is written memfd:///path"),
        ("pipe:x", "pipe: is written pipe:"),
        ("fd:3", "fd: is written fd://number"),
        ("fd://-1", "fd: is written fd://number"),
        ("fifo:///", "the path \"/\" names no file"),
        ("mq:x", "mq: is written mq:///name"),
        ("mq:///x?priority=32768", "priority=32768 is neither tag nor a number below 32768"),
        ("sysvmq:?id=1", "sysvmq: is written sysvmq:///path?id=7 or sysvmq:?key=0x51, never both"),
        ("sysvmq:?key=0x1&type=0", "type=0 is not a number from 1 to 2147483647"),
        ("unix:x", "unix: is written unix:///path or unix:@name"),
        ("unix:@", "the name is empty"),
        ("unix:@x?type=packet", "type=packet is none of stream, dgram, seqpacket"),
        ("unix:@x?framing=some", "framing: \"some\" is no framing; allowed are frames, none and lines"),
        (
            "unix:@x?ring=spsc",
            "unknown key \"ring\"; allowed here are type, framing, perm, connect, capacity, max_message",
        ),
        ("tcp://x", &host("x")),
        ("tcp://:7", &host(":7")),
        ("tcp://[::1]", &host("[::1]")),
        ("tcp://::1:7", &host("::1:7")),
        ("udp://1.2.3:7", &host("1.2.3:7")),
        ("udp://x:65536", &host("x:65536")),
        ("udp://x:+7", &host("x:+7")),
        ("tcp:x:7", "tcp: is written tcp://host:port"),
        (
            "tcp://x:7?connect=5",
            "connect: \"5\" is not a duration: it has no unit; write a whole number and one of ns, us, ms, s, m",
        ),
        ("signal://0", "signal: is written signal://pid?sig=RTMIN+1"),
        ("signal://2147483648", "signal: is written signal://pid?sig=RTMIN+1"),
        ("signal://self?sig=RTMIN+31", "sig=RTMIN+31 is none of RTMIN+0 to RTMIN+30"),
        ("signal://self?sig=SIGUSR1", "sig=SIGUSR1 is none of RTMIN+0 to RTMIN+30"),
        ("log:///x?lock=lockf", "lock=lockf is none of flock, fcntl, ofd"),
        ("log:///x?reader=a/b", "the name \"a/b\" has a slash in it"),
    ] {
        let error = text.parse::<Address>().expect_err(text);
        assert_eq!(error.to_string(), format!("bad address {text:?}: {problem}"));
    }
    let error = "shm:///a?capacity=4mb".parse::<Address>().unwrap_err().to_string();
    assert!(error.contains("capacity: \"4mb\" is not a size: \"mb\" is no unit of it; write"), "{error}");
}

/// Any byte a path may hold, escaped by a rule of its own: always.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02x}")).collect()
}

fn component() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((1..=u8::MAX).prop_filter("a slash separates", |&byte| byte != b'/'), 1..12)
        .prop_filter("dots are no file", |name| name != b"." && name != b"..")
}

fn query() -> impl Strategy<Value = Vec<String>> {
    let bytes = prop_oneof![any::<u64>(), (0..24_u32).prop_map(|shift| 1 << shift)];
    let options = (
        prop::option::of(prop::sample::select(vec!["ring=spsc", "ring=mpmc"]).prop_map(str::to_owned)),
        prop::option::of(bytes.clone().prop_map(|bytes| format!("capacity={bytes}"))),
        prop::option::of(bytes.prop_map(|bytes| format!("max_message={bytes}B"))),
        prop::option::of(prop::sample::select(vec!["spin", "futex", "sem"]).prop_map(|wait| format!("wait={wait}"))),
        prop::option::of((0..=0o777_u32).prop_map(|bits| format!("perm={bits:o}"))),
        prop::option::of(prop::sample::select(vec!["persist=yes", "persist=no"]).prop_map(str::to_owned)),
        prop::option::of((1..=64_u32).prop_map(|count| format!("producers={count}"))),
        prop::option::of((1..=15_u32).prop_map(|count| format!("max_deliveries={count}"))),
    );
    options.prop_flat_map(|(a, b, c, d, e, f, g, h)| {
        Just([a, b, c, d, e, f, g, h].into_iter().flatten().collect::<Vec<_>>()).prop_shuffle()
    })
}

fn with_query(place: String, query: &[String]) -> String {
    if query.is_empty() { place } else { format!("{place}?{}", query.join("&")) }
}

fn assert_round_trips(address: &Address) {
    let printed = address.to_string();
    assert!(printed.bytes().all(|byte| byte.is_ascii_graphic()), "{printed:?}");
    assert_eq!(&parse(&printed), address);
    assert_eq!(parse(&printed).to_string(), printed);
}

proptest! {
    #[test]
    fn names_and_options_round_trip(name in "[^/\0]{1,12}", query in query()) {
        prop_assume!(name != "." && name != "..");
        let address = parse(&with_query(format!("shm:///{}", escaped(name.as_bytes())), &query));
        prop_assert_eq!(address.target(), &posix(&name));
        assert_round_trips(&address);
        prop_assert_eq!(address.to_string().split_once('?').map_or(0, |(_, q)| q.split('&').count()), query.len());
    }

    #[test]
    fn paths_are_byte_strings_and_round_trip(components in prop::collection::vec(component(), 1..4), query in query()) {
        let path: Vec<u8> = components.iter().flat_map(|name| [b"/", &name[..]].concat()).collect();
        let address = parse(&with_query(format!("file:///{}", escaped(&path[1..])), &query));
        prop_assert_eq!(address.target(), &file(&path));
        assert_round_trips(&address);
    }

    #[test]
    fn system_v_keys_round_trip(key in 1..=u32::MAX, id in 1..=u8::MAX, query in query()) {
        for own in [format!("sysv:?key={key:#x}"), format!("sysv:///run/q?id={id}")] {
            let text = std::iter::once(own).chain(query.iter().cloned()).collect::<Vec<_>>().join("&");
            assert_round_trips(&parse(&text));
        }
    }

    #[test]
    fn arbitrary_text_is_refused_or_round_trips(
        parts in prop::collection::vec(
            prop_oneof![
                any::<String>(),
                prop::sample::select(vec![
                    "shm:///", "sysv:", "sysv:///", "file:///", "anon:", "memfd:///", "auto:///", "pipe:", "fd://", "fifo:///", "pty:///",
                    "mq:///", "sysvmq:", "sysvmq:///", "unix:///", "unix:@", "tcp://", "udp://", "[::1]:", "127.0.0.1:", "localhost:",
                    "signal://", "self", "log:///", "type=", "dgram", "priority=", "tag", "sig=RTMIN+", "lock=", "ofd", "reader=",
                    "framing=", "lines", "connect=", "5s", "?", "&", "=", "%", "%2F", "/", ".", "..", "a",
                    "id=7", "key=0x51", "ring=spsc", "ring=mpmc", "producers=", "64", "capacity=", "4MiB", "wait=spin", "perm=0600", "persist=no",
                ])
                .prop_map(str::to_owned),
            ],
            0..8,
        )
    ) {
        if let Ok(address) = parts.concat().parse::<Address>() {
            assert_round_trips(&address);
        }
    }
}
