//! The events by their numbers: ids, skew, prices and times.

use crate::sources::pace::Pace;
use crate::sources::random::{Noise, mix, scale, to_unit};

/// Persons, auctions and bids of each group of events.
pub(super) const GROUP: u64 = 50;
pub(super) const PERSONS: u64 = 1;
pub(super) const AUCTIONS: u64 = 3;
pub(super) const BIDS: u64 = GROUP - PERSONS - AUCTIONS;

const FIRST_PERSON_ID: u64 = 1_000;
const FIRST_AUCTION_ID: u64 = 1_000;
const FIRST_CATEGORY_ID: u64 = 10;
const CATEGORIES: u64 = 5;
/// One in so many ids is hot.
const HOT_SPACING: u64 = 100;
/// All but one in so many bids go to the hot auction, come from the hot bidder; auctions from the hot seller.
const HOT_AUCTION_RATIO: u64 = 2;
const HOT_BIDDER_RATIO: u64 = 4;
const HOT_SELLER_RATIO: u64 = 4;
/// Persons who still take part, auctions that are still open.
const ACTIVE_PERSONS: u64 = 1_000;
const OPEN_AUCTIONS: u64 = 100;
/// How far references may run ahead of the ids handed out so far.
const ID_LEAD: u64 = 10;

/// Makes events; one noise function per drawn property.
#[derive(Debug, Clone)]
pub(super) struct Events {
    base_time_us: i64,
    pace: Pace,
    seed: u64,
    hot_auction: Noise,
    hot_bidder: Noise,
    hot_seller: Noise,
    category: Noise,
    price: Noise,
    reserve: Noise,
    duration: Noise,
}

impl Events {
    /// Events whose times follow `pace` from `base_time_us`.
    pub(super) fn new(seed: u64, base_time_us: i64, pace: Pace) -> Self {
        let noise = |name| Noise::new(seed, name);
        Self {
            base_time_us,
            pace,
            seed,
            hot_auction: noise("hot auction"),
            hot_bidder: noise("hot bidder"),
            hot_seller: noise("hot seller"),
            category: noise("category"),
            price: noise("price"),
            reserve: noise("reserve"),
            duration: noise("duration"),
        }
    }

    /// The noise of a text column.
    pub(super) fn noise(&self, column: &str) -> Noise {
        Noise::new(self.seed, column)
    }

    /// When event `n` happens, in microseconds.
    #[inline]
    pub(super) fn time(&self, n: u64) -> i64 {
        self.base_time_us.saturating_add(self.pace.time_of(n))
    }

    /// The id of the person who is event `n`.
    #[inline]
    pub(super) fn person_id(&self, n: u64) -> i64 {
        (FIRST_PERSON_ID + last_person(n)) as i64
    }

    /// The id of the auction that is event `n`.
    #[inline]
    pub(super) fn auction_id(&self, n: u64) -> i64 {
        (FIRST_AUCTION_ID + last_auction(n)) as i64
    }

    /// The auction that bid `n` is for.
    #[inline]
    pub(super) fn bid_auction(&self, n: u64) -> i64 {
        let bits = self.hot_auction.bits(n);
        let last = last_auction(n);
        let auction = if scale(bits, HOT_AUCTION_RATIO) > 0 {
            last / HOT_SPACING * HOT_SPACING
        } else {
            let oldest = last.saturating_sub(OPEN_AUCTIONS);
            oldest + scale(mix(bits), last - oldest + 1 + ID_LEAD)
        };
        (FIRST_AUCTION_ID + auction) as i64
    }

    /// Who made bid `n`.
    #[inline]
    pub(super) fn bidder(&self, n: u64) -> i64 {
        let bits = self.hot_bidder.bits(n);
        let person =
            if scale(bits, HOT_BIDDER_RATIO) > 0 { last_person(n) / HOT_SPACING * HOT_SPACING + 1 } else { active_person(n, mix(bits)) };
        (FIRST_PERSON_ID + person) as i64
    }

    /// Who offers auction `n`.
    #[inline]
    pub(super) fn seller(&self, n: u64) -> i64 {
        let bits = self.hot_seller.bits(n);
        let person =
            if scale(bits, HOT_SELLER_RATIO) > 0 { last_person(n) / HOT_SPACING * HOT_SPACING } else { active_person(n, mix(bits)) };
        (FIRST_PERSON_ID + person) as i64
    }

    /// The category of auction `n`.
    #[inline]
    pub(super) fn category(&self, n: u64) -> i64 {
        (FIRST_CATEGORY_ID + scale(self.category.bits(n), CATEGORIES)) as i64
    }

    /// The price of bid `n`, or the first price of auction `n`.
    #[inline]
    pub(super) fn price(&self, n: u64) -> i64 {
        price(self.price.bits(n))
    }

    /// What auction `n` must reach to be sold.
    #[inline]
    pub(super) fn reserve(&self, n: u64) -> i64 {
        self.price(n) + price(self.reserve.bits(n))
    }

    /// When auction `n` ends, in microseconds: so that about [`OPEN_AUCTIONS`] are open at any time.
    #[inline]
    pub(super) fn expires(&self, n: u64) -> i64 {
        let now = self.time(n);
        let horizon_ms = (self.time(n + OPEN_AUCTIONS * GROUP / AUCTIONS) - now) / 1_000;
        let duration_ms = 1 + scale(self.duration.bits(n), (2 * horizon_ms).max(1) as u64) as i64;
        now.saturating_add(duration_ms * 1_000)
    }
}

/// From 1.00 to 1,000,000.00, in cents, evenly spread over the orders of magnitude.
#[inline]
fn price(bits: u64) -> i64 {
    ((to_unit(bits) * 6.0 * std::f64::consts::LN_10).exp() * 100.0).round() as i64
}

/// The newest person at event `n`, from 0.
#[inline]
fn last_person(n: u64) -> u64 {
    n / GROUP
}

/// The newest auction at event `n`, from 0; the first one where there is none yet.
#[inline]
fn last_auction(n: u64) -> u64 {
    let (group, position) = (n / GROUP, n % GROUP);
    if position < PERSONS { (group * AUCTIONS).saturating_sub(1) } else { group * AUCTIONS + (position - PERSONS).min(AUCTIONS - 1) }
}

/// One of the newest persons at event `n`.
#[inline]
fn active_person(n: u64, bits: u64) -> u64 {
    let persons = last_person(n) + 1;
    let active = persons.min(ACTIVE_PERSONS);
    persons - active + scale(bits, active + ID_LEAD)
}
