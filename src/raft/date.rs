//! The date in the head of an answer, by the node's own clock.
//!
//! The transport would take the system's. Its digits, packed, are more or fewer bytes, which a slow link carries sooner or later: a
//! simulated cluster would not do the same in every run.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use httpdate::HttpDate;
use tonic::codegen::http::{HeaderValue, Response, header::DATE};
use tower::util::MapResponseLayer;

use crate::env::Clock;

/// Year 9999: later ones can't be written.
const WALL_MS_MAX: u64 = 253_402_300_799_000;

/// Gives every answer its date, to the second.
pub fn dated<B>(clock: Arc<dyn Clock>) -> MapResponseLayer<impl Fn(Response<B>) -> Response<B> + Clone> {
    MapResponseLayer::new(move |mut response: Response<B>| {
        let date = date(clock.wall_ms());
        response.headers_mut().insert(DATE, date);
        response
    })
}

fn date(wall_ms: u64) -> HeaderValue {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(wall_ms.min(WALL_MS_MAX));
    HeaderValue::from_str(&HttpDate::from(time).to_string()).expect("a date is ASCII")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_date_is_the_clocks_and_any_clock_has_one() {
        for (wall_ms, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_827_696_789, "Tue, 29 Feb 2000 12:34:56 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(super::date(wall_ms).to_str().expect("ASCII"), expected);
        }
    }
}
