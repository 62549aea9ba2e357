//! Who has something to show, as the capabilities and the documentation say.

use super::*;

#[test]
fn system_v_queues_cannot_be_polled() {
    let key = 0x6000_0000 | std::process::id();
    let address: Address = format!("sysvmq:?key={key:#x}").parse().unwrap();
    let (mut receiver, mut sender) =
        (Options::new().receiver(&address).unwrap(), Options::new().sender(&address).unwrap());
    let watched = (receiver.inward().watch().unwrap(), sender.outward().watch().unwrap());
    drop((receiver, sender));
    let _ = crate::transport::remove(&address, true);
    assert!(watched.0.is_none() && watched.1.is_none());
}

#[test]
fn the_capabilities_say_who_can_be_polled() {
    let named = |case: &&Case| !case.address.starts_with("fd:");
    for case in CASES.iter().filter(named) {
        let address = case.address.replace("{port}", "1").replace("{dir}", "/tmp").replace("{pid}", "1");
        let capabilities = address.parse::<Address>().unwrap().capabilities();
        assert!(capabilities.pollable, "{address}");
    }
    assert!(!"sysvmq:?key=0x7".parse::<Address>().unwrap().capabilities().pollable);
}

/// The rows of the table in `docs/transports.md`: an address for a label.
const ROWS: [(&str, &str); 13] = [
    ("`pipe:`, `fd://NUMBER`", "pipe:"),
    ("`fifo:///PATH`", "fifo://{dir}/fifo"),
    ("`pty:///PATH`", "pty://{dir}/tty"),
    ("`mq:///NAME`", "mq:///{name}"),
    ("`sysvmq:///PATH?id=7`", ""),
    ("`unix:///PATH`, `unix:@NAME`", "unix://{dir}/socket"),
    ("`unix:///PATH?type=dgram`", "unix://{dir}/socket?type=dgram"),
    ("`unix:///PATH?type=seqpacket`", "unix://{dir}/socket?type=seqpacket"),
    ("`tcp://HOST:PORT`", "tcp://127.0.0.1:{port}"),
    ("`udp://HOST:PORT`", "udp://127.0.0.1:{port}"),
    ("`signal://PID`", "signal://{pid}?sig=RTMIN+6"),
    ("`log:///PATH`", "log://{dir}/log"),
    ("`auto:///NAME`", "unix://{dir}/socket"),
];

#[test]
fn the_table_says_what_shows() {
    let mut table = String::from(
        "| address | receiver | a sender that was killed | sender | a receiver that is gone |\n| --- | --- | --- | --- | --- |\n",
    );
    for (label, address) in ROWS {
        let row = match CASES.iter().find(|case| case.address == address) {
            None => ["-"; 4],
            Some(case) => [
                "yes",
                match case.death {
                    Shown if case.must_look => "the last one shows, others by looking",
                    Shown => "shows",
                    Looked => "by looking",
                    Unknown => "-",
                },
                if case.sender_is_pollable { "yes" } else { "-" },
                match case {
                    Case { sender_is_pollable: false, .. } => "-",
                    Case { sender_must_look: true, .. } => "by looking",
                    Case { is_ever_full: false, .. } => "-",
                    _ => "shows",
                },
            ],
        };
        table.push_str(&format!("| {label} | {} |\n", row.join(" | ")));
    }
    let document = include_str!("../../../docs/transports.md");
    let (_, rest) = document.split_once("<!-- polling -->\n").unwrap();
    let (there, _) = rest.split_once("<!-- /polling -->").unwrap();
    assert!(there == table, "put this between the markers in docs/transports.md:\n{table}");
}
