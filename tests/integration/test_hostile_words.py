"""Words that mean something to a mail server, a template, a browser or a table arrive as words."""

from rapport.standalone.demo.receivers import MailServer

from .clients import Rapport
from .conftest import Installation

WORDS = (
    "{{ 7 * 7 }} {% for x in y %} ${7*7} %s {0} =1+1 <script>alert('&')</script> \\r\\nBcc: x@y.org"
)
HEADER = "Kettle\r\nBcc: all@example.org\r\n\r\nTo: everybody"


async def test_hostile_words_arrive_as_words(embedded: Installation, mail: MailServer) -> None:
    rapport: Rapport = embedded.client
    sender = {"name": WORDS, "email": "robin@example.org"}
    complaint = {"kind": "complaint", "channel": "email", "subject": HEADER, "text": WORDS}
    receipt = await rapport.send(complaint | {"contact": sender})
    case = await rapport.case_of(receipt)
    assert case["title"] == "Kettle Bcc: all@example.org To: everybody"

    reader = {"channel": "email", "to": "press@example.org"}
    pia = {"name": WORDS, "groups": ["press"], "addresses": [reader]}
    await rapport.put("/notification/v1/stakeholders/pia", pia, as_="lin")
    said = {
        "groups": ["press"],
        "wordings": {"en": {"subject": f"{HEADER} {WORDS}", "text": WORDS}},
    }
    await rapport.post("/notification/v1/communications", said, as_="anna")
    path = f"/routing/v1/cases/{case['id']}/replies"
    await rapport.post(path, {"text": WORDS}, as_="lin")
    await rapport.settled()

    arrived = {arrival.to: arrival for arrival in mail.arrived}
    assert arrived.keys() == {"press@example.org", "robin@example.org"}
    assert len(mail.arrived) == 2
    for arrival in arrived.values():
        assert arrival.text.startswith(WORDS)
        assert "Kettle Bcc: all@example.org To: everybody" in arrival.subject


async def test_an_address_is_no_place_for_a_second_one(embedded: Installation) -> None:
    for to in (
        "pia@example.org\r\nBcc: all@example.org",
        "pia@example.org\nRCPT TO:<all@example.org>",
        "pia@example.org, all@example.org",
        "<pia@example.org>",
        "pia@example.org>",
        "pia@exam\u2028ple.org",
    ):
        body = {"addresses": [{"channel": "email", "to": to}]}
        path = "/notification/v1/stakeholders/pia"
        answer = await embedded.client.call("PUT", path, as_="lin", json=body)
        assert answer.status_code == 422, to
        assert "example" not in answer.text
