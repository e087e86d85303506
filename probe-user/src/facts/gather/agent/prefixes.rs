//! Lists of prefixes, as text or as Go writes a `net.IPNet`: `{"IP": "169.254.0.0", "Mask": "//8AAA=="}`, the mask's bytes
//! in base64 (encoding/json, `[]byte`).

use std::net::IpAddr;

use base64::{
    Engine as _, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::Value;

/// The prefixes as `address/len`, and those that were left out, each with the reason.
pub(super) fn read(value: &Value) -> (Vec<String>, Vec<String>) {
    let (mut prefixes, mut left_out) = (Vec::new(), Vec::new());
    for entry in value.as_array().into_iter().flatten() {
        match entry.as_str().map_or_else(|| of_net(entry), |text| Ok(whole(text))) {
            Ok(prefix) => prefixes.push(prefix),
            Err(why) => left_out.push(format!("{entry} was left out: {why}")),
        }
    }
    (prefixes, left_out)
}

/// A prefix as Go has it: without the bits that its length leaves out. What is none stays as it is.
pub(super) fn whole(text: &str) -> String {
    let masked = |text: &str| {
        let (address, length) = text.split_once('/')?;
        let length: u32 = length.parse().ok()?;
        let address = match address.parse().ok()? {
            IpAddr::V4(ip) if length <= 32 => {
                IpAddr::V4((ip.to_bits() & u32::MAX.checked_shl(32 - length).unwrap_or(0)).into())
            }
            IpAddr::V6(ip) if length <= 128 => {
                IpAddr::V6((ip.to_bits() & u128::MAX.checked_shl(128 - length).unwrap_or(0)).into())
            }
            _ => return None,
        };
        Some(format!("{address}/{length}"))
    };
    masked(text).unwrap_or_else(|| text.to_owned())
}

fn of_net(value: &Value) -> Result<String, &'static str> {
    let text = |member: &str| value.get(member).and_then(Value::as_str);
    let address: IpAddr = text("IP").and_then(|ip| ip.parse().ok()).ok_or("it has no IP")?;
    let mask = text("Mask").and_then(bytes).ok_or("its mask is not base64")?;
    let bits = match (mask.len(), address) {
        (4, IpAddr::V4(_)) | (16, IpAddr::V6(_)) => mask.as_slice(),
        // As Go takes it: the mask of the address mapped into IPv6 (net/ip.go, `networkNumberAndMask`).
        (16, IpAddr::V4(_)) if mask[..12] == [0xff; 12] => &mask[12..],
        _ => return Err("its mask is of another family"),
    };
    let length = bits.iter().map(|byte| byte.leading_ones()).take_while(|&ones| ones == 8).count() * 8;
    let rest = bits.get(length / 8).map_or(0, |byte| byte.leading_ones());
    let ones: u32 = bits.iter().map(|byte| byte.count_ones()).sum();
    let length = u32::try_from(length).unwrap_or(u32::MAX).saturating_add(rest);
    if ones != length {
        return Err("its mask has gaps");
    }
    Ok(format!("{address}/{length}"))
}

/// A mask's bytes: more than 16 are no mask.
fn bytes(text: &str) -> Option<Vec<u8>> {
    const MAX_CHARACTERS: usize = 24;
    /// As encoding/json reads it: padded, and bits that no byte needs do not matter.
    const ENCODING: GeneralPurpose =
        GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
    (text.len() <= MAX_CHARACTERS).then(|| ENCODING.decode(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_net_of_go_has_its_length() {
        for (ip, mask, expected) in [
            ("169.254.0.0", "//8AAA==", "169.254.0.0/16"),
            ("169.254.116.108", "/////w==", "169.254.116.108/32"),
            ("10.0.0.0", "/8AAAA==", "10.0.0.0/10"),
            ("0.0.0.0", "AAAAAA==", "0.0.0.0/0"),
            ("10.0.0.0", "////////////////AAAAAA==", "10.0.0.0/0"),
            ("fd54::", "//8AAAAAAAAAAAAAAAAAAA==", "fd54::/16"),
            ("fd54::1", "/////////////////////w==", "fd54::1/128"),
        ] {
            assert_eq!(
                read(&json!([{"IP": ip, "Mask": mask}])),
                (vec![expected.to_owned()], Vec::new()),
                "{ip} {mask}"
            );
        }
    }

    #[test]
    fn a_mask_that_is_none_is_left_out_and_told() {
        for (ip, mask, why) in [
            ("169.254.0.0", json!("/wD/AA=="), "gaps"),
            ("169.254.0.0", json!("//8A"), "another family"),
            ("fd54::", json!("//8AAA=="), "another family"),
            ("10.0.0.0", json!("AAAAAAAAAAAAAAAAAAAAAA=="), "another family"),
            ("169.254.0.0", json!("//8AAA"), "base64"),
            ("169.254.0.0", json!("*/8AAA=="), "base64"),
            ("169.254.0.0", json!("////////////////////////////////"), "base64"),
            ("169.254.0.0", json!(null), "base64"),
            ("nowhere", json!("//8AAA=="), "no IP"),
        ] {
            let (prefixes, left_out) = read(&json!([{"IP": ip, "Mask": mask}, "10.0.0.0/8"]));
            assert_eq!(prefixes, ["10.0.0.0/8"], "{ip} {mask}");
            assert!(matches!(left_out.as_slice(), [one] if one.contains(why)), "{ip} {mask}: {left_out:?}");
        }
        assert_eq!(read(&json!(null)), (Vec::new(), Vec::new()));
    }

    #[test]
    fn what_a_prefix_leaves_out_is_not_told() {
        for (text, expected) in [
            ("169.254.20.10/16", "169.254.0.0/16"),
            ("169.254.20.10/32", "169.254.20.10/32"),
            ("1.2.3.4/0", "0.0.0.0/0"),
            ("FD54:0::1/64", "fd54::/64"),
            ("fd54::1/0", "::/0"),
            ("1.2.3.4/33", "1.2.3.4/33"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(whole(text), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_mask_is_survived(mask in "[A-Za-z0-9+/=*]{0,40}") {
            let (prefixes, left_out) = read(&json!([{"IP": "169.254.0.0", "Mask": mask}]));
            proptest::prop_assert_eq!(prefixes.len() + left_out.len(), 1);
        }
    }
}
