from doors.http.times import HttpDate, iso


def test_moments_are_in_utc_to_the_millisecond() -> None:
    assert iso(0.0) == "1970-01-01T00:00:00.000Z"
    assert iso(1_700_000_000.1239) == "2023-11-14T22:13:20.123Z"


def test_the_date_of_an_answer_is_that_of_its_second() -> None:
    now = 1_700_000_000.2
    date = HttpDate(lambda: now)
    assert date() == b"Tue, 14 Nov 2023 22:13:20 GMT"
    now = 1_700_000_001.0
    assert date() == b"Tue, 14 Nov 2023 22:13:21 GMT"
