"""What the invented company of the demo does: its markets, goods, activities and notes.

Plain data for `generate.py`, which makes orders of it. The names and texts are chosen for
their letters: umlauts, accents, quotes, emoji.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta, timezone


@dataclass(frozen=True)
class Country:
    """Where customers sit, and who serves them there."""

    code: str
    currency: str
    utc_offset_hours: float
    places: tuple[str, ...]
    trades: tuple[str, ...]
    clerks: tuple[str, ...]

    @property
    def time_zone(self) -> timezone:
        """The country's standard time: fixed, for some machines carry no time zone database."""
        return timezone(timedelta(hours=self.utc_offset_hours))


@dataclass(frozen=True)
class Activity:
    """How long an activity takes to begin, how often a machine does it, and what it costs."""

    median_hours: float
    automated_share: float
    cost: float | None
    channels: tuple[str, ...] = ()


COUNTRIES = (
    Country(
        "DE",
        "EUR",
        1,
        ("Köln", "München", "Düsseldorf", "Gießen", "Lübeck", "Würzburg"),
        ("Großhandel GmbH", "Söhne KG", "Bäckereibedarf e. K.", "Gerätebau AG"),
        ("Jörg Schäfer", "Anneliese Groß", "Beate Krüger", "Jürgen Weiß"),
    ),
    Country(
        "FR",
        "EUR",
        1,
        ("Orléans", "Besançon", "Saint-Étienne", "Nîmes"),
        ("Frères S.A.", "Équipement SARL", "Matériaux SAS"),
        ("Hélène Lefèvre", "François Noël"),
    ),
    Country(
        "PL",
        "PLN",
        1,
        ("Łódź", "Kraków", "Gdańsk", "Wrocław"),
        ("Części Sp. z o.o.", "Narzędzia S.A."),
        ("Małgorzata Wójcik", "Paweł Żak"),
    ),
    Country(
        "US",
        "USD",
        -5,
        ("Albany", "Savannah", "Harrisburg", "Dayton"),
        ("Supply Co.", "Tools, Inc.", 'Hardware "Best Price" LLC'),
        ("Mary O'Connor", "Zoë Miller", "Ben Nguyen"),
    ),
    Country(
        "BR",
        "BRL",
        -3,
        ("São Paulo", "Brasília", "Florianópolis"),
        ("Distribuição Ltda.", "Peças e Serviços S.A."),
        ("João Conceição", "Inês Araújo"),
    ),
    Country(
        "IN",
        "INR",
        5.5,
        ("Pune", "Chennai", "Bengaluru"),
        ("Industries Pvt. Ltd.", "Traders"),
        ("Priya Nair", "Arjun Mehta"),
    ),
)
COUNTRY_WEIGHTS = (46, 14, 11, 17, 6, 6)
MATERIAL_KINDS = (
    ("Sechskantschraube M8x40, verzinkt", 0.34),
    ("Kugellager, groß, für Förderbänder", 48.9),
    ("Schließzylinder 30/35 mit Notöffnung", 31.5),
    ("Geschenkset »Grüße aus Köln« 🎁", 24.99),
    ("Hydraulikschlauch, Meterware", 12.75),
    ("Öl für Getriebe, 5 l 🛢️", 39.0),
    ("Drehstrommotor 1,5 kW, Fußausführung", 264.0),
    ("Spannungsprüfer ⚡ zweipolig", 58.2),
    ("Maßband 5 m", 6.45),
    ("Arbeitshandschuhe, Größe 10", 3.8),
    ("Control unit, 24 V, DIN rail", 189.0),
    ("Flügelmutter, Edelstahl", 0.62),
)
MATERIAL_FINISHES = ("", ", blau", ", weiß lackiert", ", Sonderausführung", ", 2nd choice")

ACTIVITIES = {
    "Create Sales Order": Activity(0, 0.4, 4.5, ("EDI", "Web shop", "E-mail", "Phone")),
    "Set Credit Block": Activity(0.3, 1, None),
    "Release Credit Block": Activity(26, 0.05, 17.5),
    "Change Price": Activity(11, 0.03, 12.25, ("E-mail", "Phone")),
    "Change Requested Date": Activity(15, 0.2, 6.8, ("Web shop", "E-mail", "Phone")),
    "Cancel Order": Activity(30, 0.1, 9.9, ("Web shop", "E-mail", "Phone")),
    "Confirm Order": Activity(4, 0.6, 2.1, ("EDI", "E-mail")),
    "Create Delivery": Activity(22, 0.75, 3.05),
    "Post Goods Issue": Activity(14, 0.45, 8.4),
    "Send Invoice": Activity(5, 0.92, 1.15, ("EDI", "E-mail", "Letter")),
    "Send Dunning Notice": Activity(9 * 24, 0.9, 5.6, ("E-mail", "Letter")),
    "Receive Payment": Activity(30, 0.7, 0.85),
    "Receive Return Request": Activity(6 * 24, 0.3, 7.7, ("Web shop", "E-mail", "Phone")),
    "Receive Returned Goods": Activity(5 * 24, 0, 14.3),
    "Issue Credit Memo": Activity(20, 0.35, 6.2, ("EDI", "E-mail", "Letter")),
}
UNTIL_GOODS_ISSUE = frozenset({"Confirm Order", "Create Delivery", "Post Goods Issue"})

SHORT_NOTES = (
    "Bitte vor 10 Uhr anliefern.",
    "Kunde wünscht Rückruf",
    "Gate 3; ask for Mr. Østergård",
    'Label: "fragile, this side up"',
    "Livraison à l'arrière du bâtiment",
    "Prüfzeugnis beilegen ✅",
)
NOTE_SENTENCES = (
    (
        "Der Kunde bittet um Anlieferung über das Rolltor an der Rückseite des Gebäudes, "
        "da die Straße vor dem Haupteingang wegen Bauarbeiten gesperrt ist."
    ),
    (
        "Die Rechnung geht abweichend an die Hauptverwaltung; Bestellnummer und Kostenstelle "
        "müssen auf jeder Seite stehen, sonst wird sie zurückgewiesen."
    ),
    (
        "Nach Rücksprache mit Frau Müller-Lüdenscheidt wird der Preis der Vorjahresbestellung "
        "gewährt, gültig für diese und die nächsten zwei Bestellungen."
    ),
    (
        "Packages must be stacked no higher than 1.20 m, wrapped in foil and marked with the "
        "customer's own part numbers on two sides."
    ),
    "Teillieferungen sind erlaubt, sofern die restliche Ware spätestens zehn Tage danach folgt.",
    "Achtung: beim letzten Mal fehlten Gefahrgutpapiere, größerer Ärger mit der Spedition.",
)
