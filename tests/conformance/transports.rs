//! The transports, and what each is expected to do.

/// A way for messages to go. In its address, `{name}` is a name that no other test has, `{directory}` an empty directory,
/// `{key}` and `{port}` numbers of its own, and `{pid}` the receiving process.
#[derive(Debug)]
pub struct Transport {
    pub address: &'static str,
    /// What the mechanism takes at once, in bytes; any number if it makes no difference.
    pub unit: usize,
    /// The longest message that is tried, unless the sender's limit is lower.
    pub largest: usize,
    /// How many small messages make many.
    pub many: u64,
    /// The longest message where several send at once.
    pub longest_of_many: usize,
    /// Whether every message arrives.
    pub is_reliable: bool,
    /// Whether messages that nobody has received outlive both sides.
    pub keeps_messages: bool,
    /// Whether it can be opened again.
    pub has_name: bool,
    /// The kind of the sockets that are inherited, if any are.
    pub sockets: Option<libc::c_int>,
    /// Whether it reaches only children that are forked while it is open.
    pub is_inherited: bool,
    /// Whether nothing is kept for a receiver that isn't there yet.
    pub needs_receiver: bool,
    /// Whether a refused second receiver learns who the first one is.
    pub names_holder: bool,
    /// Whether something stays in the directory on purpose.
    pub persists: bool,
    /// What [`Address::capabilities`](ringway::Address::capabilities) says, if it can say how many.
    pub producers: Option<Option<u32>>,
    pub consumers: Option<u32>,
}

const USUAL: Transport = Transport {
    address: "",
    unit: 4096,
    largest: 16 << 20,
    many: 50_000,
    longest_of_many: 100_000,
    is_reliable: true,
    keeps_messages: false,
    has_name: true,
    sockets: None,
    is_inherited: false,
    needs_receiver: false,
    names_holder: true,
    persists: false,
    producers: Some(None),
    consumers: Some(1),
};

const RING: Transport = Transport { keeps_messages: true, producers: Some(Some(1)), ..USUAL };

const RING_OF_MANY: Transport = Transport { producers: Some(Some(8)), consumers: Some(64), ..RING };

const UNIX: Transport = Transport { unit: 64 << 10, ..USUAL };

const FDS: Transport = Transport { has_name: false, producers: None, ..UNIX };

// Its buffer may hold no more than three of the longest datagrams.
const UDP: Transport = Transport {
    unit: 65_507,
    largest: 120_000,
    longest_of_many: 5_000,
    is_reliable: false,
    needs_receiver: true,
    names_holder: false,
    ..USUAL
};

const LOG: Transport = Transport { persists: true, consumers: None, ..USUAL };

macro_rules! transports {
    ($($name:ident: $address:literal, { $($field:ident: $value:expr,)* } of $base:expr;)*) => {
        $(pub const $name: Transport = Transport { address: $address, $($field: $value,)* ..$base };)*
    };
}

transports! {
    SHM: "shm:///{name}", {} of RING;
    SHM_MPMC: "shm:///{name}?ring=mpmc&producers=8&max_message=1MiB", {} of RING_OF_MANY;
    SYSV: "sysv:?key={key}", {} of RING;
    SYSV_MPMC: "sysv:?key={key}&ring=mpmc&producers=8&max_message=1MiB", {} of RING_OF_MANY;
    FILE: "file://{directory}/ring?persist=no", {} of RING;
    FILE_MPMC: "file://{directory}/ring?persist=no&ring=mpmc&producers=8&max_message=1MiB", {} of RING_OF_MANY;
    ANON: "anon:{name}", { is_inherited: true, has_name: false, } of RING;
    ANON_MPMC: "anon:{name}?ring=mpmc&producers=8&max_message=1MiB", { is_inherited: true, has_name: false, } of RING_OF_MANY;
    MEMFD: "memfd://{directory}/meet", {} of RING;
    MEMFD_MPMC: "memfd://{directory}/meet?ring=mpmc&producers=8&max_message=1MiB", {} of RING_OF_MANY;
    SHM_SEM: "shm:///{name}?wait=sem", {} of RING;
    SHM_MPMC_SEM: "shm:///{name}?wait=sem&ring=mpmc&producers=8&max_message=1MiB", {} of RING_OF_MANY;
    SHM_NAMED_SEM: "shm:///{name}?wait=named-sem", {} of RING;
    SHM_FIFO: "shm:///{name}?wait=fifo", {} of RING;
    SHM_MPMC_FIFO: "shm:///{name}?wait=fifo&ring=mpmc&producers=8&max_message=1MiB", {} of RING_OF_MANY;
    SYSV_SYSV_SEM: "sysv:?key={key}&wait=sysv-sem", {} of RING;
    SYSV_MPMC_SYSV_SEM: "sysv:?key={key}&wait=sysv-sem&ring=mpmc&producers=8&max_message=1MiB", {} of RING_OF_MANY;
    FILE_MPMC_NAMED_SEM: "file://{directory}/ring?wait=named-sem&persist=no&ring=mpmc&producers=8&max_message=1MiB", {} of RING_OF_MANY;
    ANON_EVENTFD: "anon:{name}?wait=eventfd", { is_inherited: true, has_name: false, } of RING;
    MEMFD_EVENTFD: "memfd://{directory}/meet?wait=eventfd", {} of RING;
    MEMFD_MPMC_EVENTFD: "memfd://{directory}/meet?wait=eventfd&ring=mpmc&producers=8&max_message=1MiB", {} of RING_OF_MANY;
    AUTO_EVENTFD: "auto:///{name}?wait=eventfd", { producers: Some(Some(1)), } of USUAL;
    AUTO: "auto:///{name}", { producers: Some(Some(1)), } of USUAL;
    PIPE: "pipe:", { has_name: false, } of USUAL;
    FD: "fd://{end}", { unit: 4096, sockets: Some(libc::SOCK_STREAM), } of FDS;
    FD_DGRAM: "fd://{end}", { sockets: Some(libc::SOCK_DGRAM), } of FDS;
    FD_SEQPACKET: "fd://{end}", { sockets: Some(libc::SOCK_SEQPACKET), } of FDS;
    FIFO: "fifo://{directory}/fifo", {} of USUAL;
    PTY: "pty://{directory}/tty", { unit: 4095, producers: Some(Some(1)), } of USUAL;
    MQ: "mq:///{name}", { unit: 8192, keeps_messages: true, } of USUAL;
    MQ_PRIORITY: "mq:///{name}?priority=9", { unit: 8192, keeps_messages: true, } of USUAL;
    SYSVMQ: "sysvmq:?key={key}", { unit: 8192, keeps_messages: true, } of USUAL;
    UNIX_STREAM: "unix://{directory}/socket", {} of UNIX;
    UNIX_DGRAM: "unix://{directory}/socket?type=dgram", {} of UNIX;
    UNIX_SEQPACKET: "unix://{directory}/socket?type=seqpacket", {} of UNIX;
    UNIX_ABSTRACT: "unix:@{name}", {} of UNIX;
    // Whose a socket without a connection is, nobody can tell.
    UNIX_ABSTRACT_DGRAM: "unix:@{name}?type=dgram", { names_holder: false, } of UNIX;
    UNIX_ABSTRACT_SEQPACKET: "unix:@{name}?type=seqpacket", {} of UNIX;
    TCP4: "tcp://127.0.0.1:{port}", { unit: 64 << 10, names_holder: false, } of USUAL;
    TCP6: "tcp://[::1]:{port}", { unit: 64 << 10, names_holder: false, } of USUAL;
    UDP4: "udp://127.0.0.1:{port}", {} of UDP;
    UDP6: "udp://[::1]:{port}", {} of UDP;
    SIGNAL: "signal://{pid}?sig=RTMIN+5", {
        unit: 8,
        largest: 256 << 10,
        many: 5_000,
        longest_of_many: 2_000,
        needs_receiver: true,
    } of USUAL;
    LOG_FLOCK: "log://{directory}/log", {} of LOG;
    LOG_FCNTL: "log://{directory}/log?lock=fcntl&reader=r", {} of LOG;
    LOG_OFD: "log://{directory}/log?lock=ofd&reader=r", {} of LOG;
}
