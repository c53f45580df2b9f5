//! Depth compressed by RVL (Wilson, "Fast Lossless Depth Image Compression", ISS 2017), as compressed_depth_image_transport sends
//! it: runs of zeros and of differences, in groups of three bits with a fourth that says whether more follow.

/// What cannot be read, in words.
pub type Problem = &'static str;

/// The values of an image of `n_pixels`.
///
/// # Errors
/// The stream ends early, or holds more than the image.
pub fn decode(stream: &[u8], n_pixels: usize) -> Result<Vec<u16>, Problem> {
    let mut nibbles = Nibbles { stream, at: 0 };
    let mut values = Vec::with_capacity(n_pixels);
    let mut previous = 0_u16;
    while values.len() < n_pixels {
        let n_zeros = nibbles.number()? as usize;
        if n_pixels - values.len() < n_zeros {
            return Err("it holds more pixels than the image");
        }
        values.resize(values.len() + n_zeros, 0);
        let n_differences = nibbles.number()? as usize;
        if n_pixels - values.len() < n_differences {
            return Err("it holds more pixels than the image");
        }
        if n_zeros + n_differences == 0 {
            return Err("it holds an empty run");
        }
        for _ in 0..n_differences {
            let coded = nibbles.number()?;
            let difference = (coded >> 1) as i32 ^ -((coded & 1) as i32);
            previous = previous.wrapping_add(difference as u16);
            values.push(previous);
        }
    }
    Ok(values)
}

/// Four bits at a time, of little-endian words of 32 bits read from their top.
struct Nibbles<'a> {
    stream: &'a [u8],
    at: usize,
}

impl Nibbles<'_> {
    fn number(&mut self) -> Result<u32, Problem> {
        let mut value = 0_u32;
        for shift in (0..32).step_by(3) {
            // Byte 3 of a word comes first, its upper half before its lower.
            let byte = self.stream.get((self.at / 2) ^ 3).ok_or("it ends early")?;
            let nibble = u32::from(if self.at.is_multiple_of(2) { byte >> 4 } else { byte & 15 });
            self.at += 1;
            value |= (nibble & 7) << shift;
            if nibble & 8 == 0 {
                return Ok(value);
            }
        }
        Err("a number in it does not end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's encoder.
    fn encode(values: &[u16]) -> Vec<u8> {
        let mut nibbles = Vec::new();
        let mut number = |mut value: u32| {
            loop {
                let more = value >> 3;
                nibbles.push((value & 7) as u8 | if more > 0 { 8 } else { 0 });
                value = more;
                if value == 0 {
                    break;
                }
            }
        };
        let (mut at, mut previous) = (0, 0_i32);
        while at < values.len() {
            let n_zeros = values[at..].iter().take_while(|it| **it == 0).count();
            at += n_zeros;
            let n_more = values[at..].iter().take_while(|it| **it != 0).count();
            number(n_zeros as u32);
            number(n_more as u32);
            for value in &values[at..at + n_more] {
                let difference = i32::from(*value) - previous;
                number(((difference << 1) ^ (difference >> 31)) as u32);
                previous = i32::from(*value);
            }
            at += n_more;
        }
        let words = nibbles.chunks(8).map(|it| {
            let word = it.iter().fold(0_u32, |word, nibble| word << 4 | u32::from(*nibble));
            word << (4 * (8 - it.len()))
        });
        words.flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let mut values: Vec<u16> =
            (0..5000).map(|it| if it % 7 < 2 { 0 } else { 800 + it % 97 * 13 }).collect();
        values.extend([u16::MAX, 1, u16::MAX, 0, 0]);
        assert_eq!(decode(&encode(&values), values.len()).unwrap(), values);
        assert_eq!(decode(&encode(&[0; 70]), 70).unwrap(), [0; 70]);
        // By hand: 1 zero, 2 values: 3 (coded 6), then 2 (coded 1).
        assert_eq!(decode(&[0x00, 0x00, 0x61, 0x12], 3).unwrap(), [0, 3, 2]);
    }

    #[test]
    fn what_is_broken_is_refused() {
        let whole = encode(&(1..400).collect::<Vec<u16>>());
        assert_eq!(decode(&whole[..whole.len() / 8 * 4], 399).unwrap_err(), "it ends early");
        assert!(decode(&whole, 100).unwrap_err().contains("more pixels"));
        assert!(decode(&[0; 64], 100).unwrap_err().contains("empty run"));
        assert!(decode(&[0xff; 64], 100).unwrap_err().contains("does not end"));
    }
}
