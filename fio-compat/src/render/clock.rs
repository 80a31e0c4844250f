//! A timestamp as C's `ctime` writes it: `Sun Nov 22 07:15:59 2026`.
//!
//! Data flow: milliseconds since 1970 and the offset of local time -> 24 letters.
//!
//! Not here: time zones; the caller knows its offset.

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const DAY_S: u64 = 86_400;

/// The moment in local time, without a newline.
pub(super) fn ctime(timestamp_ms: u64, utc_offset_s: i32) -> String {
    let seconds = (timestamp_ms / 1000).saturating_add_signed(i64::from(utc_offset_s));
    let (days, second) = (seconds / DAY_S, seconds % DAY_S);
    let (year, month, day) = civil(days);
    let weekday = pick(&WEEKDAYS, days % 7);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let month = pick(&MONTHS, month);
    format!("{weekday} {month} {day:>2} {hour:02}:{minute:02}:{second:02} {year}")
}

fn pick(names: &[&'static str], index: u64) -> &'static str {
    usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or("???")
}

/// Year, month from 0 and day from 1 of a day counted from 1970-01-01.
///
/// Counts in years that start in March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let leap_days = day_of_era / 1_460;
    let centuries = day_of_era / 36_524;
    let year_of_era = (day_of_era - leap_days + centuries - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_read_as_ctime_prints_them() {
        assert_eq!(ctime(0, 0), "Thu Jan  1 00:00:00 1970");
        assert_eq!(ctime(1_795_331_785_811, 0), "Sun Nov 22 07:16:25 2026");
        assert_eq!(ctime(951_782_400_000, 0), "Tue Feb 29 00:00:00 2000");
        assert_eq!(ctime(951_868_799_000, 1), "Wed Mar  1 00:00:00 2000");
        assert_eq!(ctime(4_107_542_400_000, -1), "Sun Feb 28 23:59:59 2100");
        assert_eq!(ctime(0, -3600), "Thu Jan  1 00:00:00 1970");
    }
}
