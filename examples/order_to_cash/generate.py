"""Write the event log of an invented order-to-cash process as three CSV files.

`cases.csv` holds the order headers, `order_items.csv` their items and `events.csv` what
happened to them: 15,000 orders with about 100,000 events unless told otherwise. The orders
take the ways that real ones take: straight through, held by a credit block, changed in price
or date, delivered in parts, cancelled, returned, dunned; and those near the end of the log are
still open. The same seed and number of orders give the same files again.

The data is made to be awkward where real data is: umlauts and emoji, texts of several hundred
characters, line breaks and quotes inside a field, time stamps with different offsets, and
fields that are empty, dates and numbers among them. Flags are 0 and 1.

Only the standard library is needed:

    python examples/order_to_cash/generate.py OUTPUT_DIR [--cases N] [--seed S]
"""

from __future__ import annotations

import argparse
import csv
import itertools
import random
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from catalogue import (
    ACTIVITIES,
    COUNTRIES,
    COUNTRY_WEIGHTS,
    MATERIAL_FINISHES,
    MATERIAL_KINDS,
    NOTE_SENTENCES,
    SHORT_NOTES,
    UNTIL_GOODS_ISSUE,
    Country,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LOG_START = datetime(2024, 1, 2, 7, 0, tzinfo=UTC)
LOG_END = datetime(2025, 7, 1, tzinfo=UTC)
# An order placed by hand is created on the next working day, which must lie in the log too.
LAST_ORDER = LOG_END - timedelta(days=4)
FIRST_CASE_NUMBER = 4_700_001
FIRST_EVENT_ID = 1_000_001
WORKDAY_STARTS_HOUR = 8
WORKDAY_ENDS_HOUR = 17
SATURDAY = 5
DUNNING_LEVELS = 3

CASE_COLUMNS = (
    "case_key",
    "customer_number",
    "customer_name",
    "country",
    "currency",
    "net_amount",
    "created_at",
    "requested_date",
    "is_express",
    "note",
)
EVENT_COLUMNS = (
    "event_id",
    "case_key",
    "activity",
    "event_time",
    "user_name",
    "channel",
    "is_automated",
    "cost",
    "promised_date",
)
ITEM_COLUMNS = (
    "case_key",
    "item_number",
    "material",
    "description",
    "quantity",
    "unit_price",
    "delivered_at",
)

Row = tuple[str | int, ...]


@dataclass(frozen=True)
class Customer:
    """Who orders, and how they tend to pay."""

    number: str
    name: str
    country: Country
    payment_days: int
    is_risky: bool


@dataclass(frozen=True)
class Material:
    """What is sold."""

    number: str
    description: str
    unit_price: float


@dataclass(frozen=True)
class Event:
    """One thing that happened to an order, at a time with an offset."""

    case_key: str
    activity: str
    happened_at: datetime
    user_name: str
    channel: str
    is_automated: bool
    cost: float | None
    promised: date | None


@dataclass
class Item:
    """One position of an order."""

    material: Material
    quantity: int
    unit_price: float
    delivered_at: datetime | None = None


@dataclass
class Order:
    """An order on its way: what it is, what happened to it, and the present moment for it."""

    rng: random.Random
    case_key: str
    customer: Customer
    items: list[Item]
    is_express: bool
    now: datetime
    created_at: datetime = field(init=False)
    requested: date = field(init=False)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Create the order: its first event."""
        self.record("Create Sales Order")
        self.created_at = self.now
        days = self.rng.randint(1, 3) if self.is_express else self.rng.randint(5, 30)
        self.requested = self.now.date() + timedelta(days=days)

    def happens(self, probability: float) -> bool:
        """Say whether something of this probability happens to this order."""
        return happens(self.rng, probability)

    def wait(self, median_hours: float) -> None:
        """Let time pass: about this long, and now and then much longer."""
        self.now += timedelta(seconds=round(3600 * median_hours * self.rng.lognormvariate(0, 0.7)))

    def record(self, activity_name: str, promised: date | None = None) -> None:
        """Wait for an activity to begin, and add it to what happened.

        What people do, they do in working hours.
        """
        activity = ACTIVITIES[activity_name]
        hurry = 0.4 if self.is_express and activity_name in UNTIL_GOODS_ISSUE else 1
        self.wait(hurry * activity.median_hours)
        is_automated = self.happens(activity.automated_share)
        if not is_automated:
            self.now = next_working_time(self.rng, self.now)
        cost = activity.cost
        if cost is not None:
            cost = None if self.happens(0.04) else round(cost * self.rng.uniform(0.7, 1.6), 2)
        self.events.append(
            Event(
                case_key=self.case_key,
                activity=activity_name,
                happened_at=self.now,
                user_name="" if is_automated else self.rng.choice(self.customer.country.clerks),
                channel=self.rng.choice(activity.channels) if activity.channels else "",
                is_automated=is_automated,
                cost=cost,
                promised=promised,
            )
        )

    def run(self) -> None:
        """Take the order through the process to one of its ends."""
        if not self.accept():
            return
        self.change()
        if self.happens(0.045):
            self.record("Cancel Order")
            return
        self.record("Confirm Order", promised=self.promise())
        self.deliver()
        self.record("Send Invoice")
        returned = self.happens(0.05)
        if returned:
            self.record("Receive Return Request")
            self.record("Receive Returned Goods")
            self.record("Issue Credit Memo")
        if not (returned and len(self.items) == 1):
            self.collect()

    def accept(self) -> bool:
        """Hold the order while the customer's credit is in doubt; say whether it goes on."""
        if not self.happens(0.4 if self.customer.is_risky else 0.05):
            return True
        self.record("Set Credit Block")
        if self.happens(0.12):
            self.record("Cancel Order")
            return False
        self.record("Release Credit Block")
        return True

    def change(self) -> None:
        """Change the price or the date, once or a few times."""
        while self.happens(0.16):
            self.record("Change Price")
            item = self.rng.choice(self.items)
            item.unit_price = round(item.unit_price * self.rng.uniform(0.85, 1.02), 2)
        if self.happens(0.09):
            self.record("Change Requested Date")
            self.requested += timedelta(days=self.rng.randint(1, 21))

    def promise(self) -> date | None:
        """Name the day the goods are promised for; some confirmations name none."""
        if self.happens(0.1):
            return None
        late_days = self.rng.choice((0, 0, 0, 0, 1, 2, 5))
        return max(self.requested, self.now.date()) + timedelta(days=late_days)

    def deliver(self) -> None:
        """Deliver all items at once, or in two parts."""
        parts = [self.items]
        if len(self.items) > 1 and self.happens(0.29):
            cut = self.rng.randrange(1, len(self.items))
            parts = [self.items[:cut], self.items[cut:]]
        for part in parts:
            self.record("Create Delivery")
            self.record("Post Goods Issue")
            arrival = self.now + timedelta(minutes=self.rng.randint(5 * 60, 96 * 60))
            for item in part:
                item.delivered_at = arrival

    def collect(self) -> None:
        """Wait for the money, and remind the customer of it where it does not come."""
        self.now += timedelta(days=self.customer.payment_days)
        overdue = 0.5 if self.customer.is_risky else 0.09
        notices = 0
        while notices < DUNNING_LEVELS and self.happens(overdue):
            self.record("Send Dunning Notice")
            notices += 1
        if self.happens(0.99):
            self.record("Receive Payment")


def happens(rng: random.Random, probability: float) -> bool:
    """Say whether something of this probability happens."""
    return rng.random() < probability


def next_working_time(rng: random.Random, moment: datetime) -> datetime:
    """Give the moment itself, or else a time in the first hours of the next working day."""
    if moment.hour >= WORKDAY_ENDS_HOUR:
        moment = start_of_work(rng, moment + timedelta(days=1))
    elif moment.hour < WORKDAY_STARTS_HOUR:
        moment = start_of_work(rng, moment)
    while moment.weekday() >= SATURDAY:
        moment += timedelta(days=1)
    return moment


def start_of_work(rng: random.Random, day: datetime) -> datetime:
    """Give a time in the first two hours of that day's work."""
    starts_at = day.replace(hour=WORKDAY_STARTS_HOUR, minute=0, second=0)
    return starts_at + timedelta(seconds=rng.randrange(2 * 3600))


def make_customers(rng: random.Random) -> list[Customer]:
    """Invent the customers."""
    customers = []
    for number in range(100_200, 100_500):
        country = rng.choices(COUNTRIES, COUNTRY_WEIGHTS)[0]
        name = f"{rng.choice(country.places)} {rng.choice(country.trades)}"
        payment_days = rng.choice((14, 30, 30, 45, 60))
        customers.append(
            Customer(f"C{number}", name, country, payment_days, is_risky=happens(rng, 0.1))
        )
    return customers


def make_materials(rng: random.Random) -> list[Material]:
    """Invent the materials: each kind in each finish."""
    return [
        Material(f"MAT-{number:05}", kind + finish, round(price * rng.uniform(0.9, 1.3), 2))
        for number, ((kind, price), finish) in enumerate(
            itertools.product(MATERIAL_KINDS, MATERIAL_FINISHES), start=10_000
        )
    ]


def make_orders(rng: random.Random, count: int) -> Iterable[Order]:
    """Invent orders, spread evenly over the log's time, and take each through the process."""
    customers = make_customers(rng)
    materials = make_materials(rng)
    spacing = (LAST_ORDER - LOG_START) / count
    for index in range(count):
        customer = rng.choice(customers)
        placed_at = LOG_START + spacing * (index + rng.random())
        items = []
        for _ in range(rng.choices((1, 2, 3, 4, 5), (44, 26, 16, 9, 5))[0]):
            material = rng.choice(materials)
            items.append(Item(material, round(rng.lognormvariate(2, 1)) + 1, material.unit_price))
        order = Order(
            rng=rng,
            case_key=f"SO-{FIRST_CASE_NUMBER + index}",
            customer=customer,
            items=items,
            is_express=happens(rng, 0.08),
            now=placed_at.replace(microsecond=0).astimezone(customer.country.time_zone),
        )
        order.run()
        yield order


def make_note(rng: random.Random) -> str:
    """Write the note on an order: none, a short one, or one of several hundred characters."""
    if happens(rng, 0.45):
        return ""
    if happens(rng, 0.65):
        return rng.choice(SHORT_NOTES)
    separator = "\n" if happens(rng, 0.15) else " "
    return separator.join(rng.sample(NOTE_SENTENCES, rng.randint(2, 5)))


def utc_text(moment: datetime | None) -> str:
    """Write a time in UTC; what lies after the end of the log has not happened: empty."""
    if moment is None or moment >= LOG_END:
        return ""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def case_row(order: Order, note: str) -> Row:
    """Give the order's line of `cases.csv`."""
    net_amount = sum(item.quantity * item.unit_price for item in order.items)
    return (
        order.case_key,
        order.customer.number,
        order.customer.name,
        order.customer.country.code,
        order.customer.country.currency,
        f"{net_amount:.2f}",
        utc_text(order.created_at),
        order.requested.isoformat(),
        int(order.is_express),
        note,
    )


def item_rows(order: Order) -> Iterable[Row]:
    """Give the order's lines of `order_items.csv`."""
    for position, item in enumerate(order.items, start=1):
        yield (
            order.case_key,
            10 * position,
            item.material.number,
            item.material.description,
            item.quantity,
            f"{item.unit_price:.2f}",
            utc_text(item.delivered_at),
        )


def event_row(event_id: int, event: Event) -> Row:
    """Give the event's line of `events.csv`."""
    return (
        event_id,
        event.case_key,
        event.activity,
        event.happened_at.isoformat(),
        event.user_name,
        event.channel,
        int(event.is_automated),
        "" if event.cost is None else f"{event.cost:.2f}",
        "" if event.promised is None else event.promised.isoformat(),
    )


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> int:
    """Write one CSV file, in UTF-8 on every machine, and give the number of its rows."""
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(row)
            count += 1
    return count


def write_event_log(directory: Path, cases: int, seed: int) -> dict[str, int]:
    """Write the three files and give the number of rows in each, by file name."""
    rng = random.Random(seed)  # noqa: S311 - it must repeat itself; nothing here is secret
    orders = list(make_orders(rng, cases))
    events = sorted(
        (event for order in orders for event in order.events if event.happened_at < LOG_END),
        # Plain numbers compare several times faster than times with different offsets.
        key=lambda event: (event.happened_at.timestamp(), event.case_key),
    )
    directory.mkdir(parents=True, exist_ok=True)
    return {
        "cases.csv": write_table(
            directory / "cases.csv",
            CASE_COLUMNS,
            (case_row(order, make_note(rng)) for order in orders),
        ),
        "events.csv": write_table(
            directory / "events.csv",
            EVENT_COLUMNS,
            (event_row(event_id, event) for event_id, event in enumerate(events, FIRST_EVENT_ID)),
        ),
        "order_items.csv": write_table(
            directory / "order_items.csv",
            ITEM_COLUMNS,
            (row for order in orders for row in item_rows(order)),
        ),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", metavar="OUTPUT_DIR", type=Path, help="where the files go")
    parser.add_argument("--cases", metavar="N", type=int, default=15_000, help="orders to invent")
    parser.add_argument("--seed", metavar="S", type=int, default=1, help="another seed, other data")
    options = parser.parse_args(arguments)
    if options.cases < 1:
        parser.error("--cases must be at least 1")
    started = time.monotonic()
    rows = write_event_log(options.directory, options.cases, options.seed)
    counted = ", ".join(f"{count:,} rows in {name}" for name, count in rows.items())
    sys.stdout.write(f"{options.directory}: {counted} ({time.monotonic() - started:.1f} seconds)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
