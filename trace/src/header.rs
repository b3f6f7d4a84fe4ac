//! The part of a trace that travels: `traceparent` of the W3C's recommendation "Trace Context".
//!
//! Read here and not by OpenTelemetry's propagator, which takes shorter fields and signs before numbers.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The header's name.
pub const NAME: &str = "traceparent";

/// Reads a header. `None` for what is none: then the trace begins here. Later versions may add fields.
#[must_use]
pub fn read(header: &str) -> Option<SpanContext> {
    let mut fields = header.trim_matches([' ', '\t']).split('-');
    let (version, trace_id, span_id, flags) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let version = number::<2>(version)?;
    if version == 0xff || (version == 0 && fields.next().is_some()) {
        return None;
    }
    let trace_id = TraceId::from(number::<32>(trace_id)?);
    let span_id = SpanId::from(u64::try_from(number::<16>(span_id)?).ok()?);
    let sampled = number::<2>(flags)? & 1 == 1;
    let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let context = SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

/// For a request that this piece of work makes.
#[must_use]
pub fn write(context: &SpanContext) -> String {
    let sampled = u8::from(context.is_sampled());
    format!("00-{}-{}-{sampled:02x}", context.trace_id(), context.span_id())
}

/// Exactly so many small hexadecimal digits.
fn number<const DIGITS: usize>(text: &str) -> Option<u128> {
    let plain = text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a6_a_header_is_read_as_it_is_written() {
        let context = read(EXAMPLE).expect("the recommendation's example");
        assert_eq!(context.trace_id(), TraceId::from(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736));
        assert_eq!(context.span_id(), SpanId::from(0x00f0_67aa_0ba9_02b7));
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(write(&context), EXAMPLE);
        let quiet = read(&EXAMPLE.replace("-01", "-00")).expect("not to be recorded");
        assert!(!quiet.is_sampled());
    }

    #[test]
    fn a6_what_is_no_header_begins_a_trace_here() {
        let later = EXAMPLE.replacen("00", "01", 1) + "-more";
        assert!(read(&later).is_some(), "of a later version the fields that are known count");
        for wrong in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1\u{e9}",
        ] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }
}
