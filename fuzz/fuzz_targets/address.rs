//! Whatever text is read as an address prints as plain ASCII that reads as the same address.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::transport::Address;

fuzz_target!(|text: &str| {
    let Ok(address) = text.parse::<Address>() else { return };
    let printed = address.to_string();
    assert!(printed.bytes().all(|byte| byte.is_ascii_graphic()), "{printed:?}");
    assert_eq!(printed.parse().as_ref(), Ok(&address), "{printed:?}");
    assert_eq!(printed.parse::<Address>().unwrap().to_string(), printed);
});
