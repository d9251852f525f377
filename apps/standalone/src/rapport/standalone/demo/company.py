"""The company before the story: its policies, who is to be told, what is known, and its past."""

from pathlib import Path
from typing import Any

from rapport.standalone.demo.history import before
from rapport.standalone.demo.scenario import Scenario
from rapport.standalone.demo.world import ADMIN, Json, World


def write_policies(scenario: Scenario, folder: Path) -> None:
    """Write the scenario's own policies where the services look for them."""
    folder.mkdir()
    for name, text in scenario.policies.items():
        file = folder / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")


async def set_up(world: World) -> Json:
    """Set the company up and import its past; return intake's answer to that batch."""
    await _tell_of_people(world)
    scenario = world.scenario
    for id, subscription in scenario.subscriptions.items():
        await _put(world, f"/notification/v1/subscriptions/{id}", _body(subscription))
    for id, article in scenario.articles.items():
        await _put(world, f"/knowledge/v1/articles/{id}", _body(article))
    past = await world.call("archive", "POST", "/intake/v1/feedback/batch", before(scenario))
    await world.rest()
    return past


async def _tell_of_people(world: World) -> None:
    """Make everybody who works here, and every stakeholder, known to notification."""
    scenario = world.scenario
    for id, group in scenario.groups.items():
        await _put(world, f"/notification/v1/stakeholder-groups/{id}", _body(group))
    for subject, employee in scenario.people.items():
        address = {"channel": "email", "to": f"{subject}@{scenario.domain}"}
        body: Json = {
            "name": employee.name,
            "side": "internal",
            "language": employee.language,
            "addresses": [address],
        }
        await _put(world, f"/notification/v1/stakeholders/{subject}", body)
    for id, stakeholder in scenario.stakeholders.items():
        body = _body(stakeholder)
        for address in body["addresses"]:
            address["to"] = address["to"].format(webhooks=world.outside.webhooks.authority)
        known = await _put(world, f"/notification/v1/stakeholders/{id}", body)
        world.names[known["recipient"]] = id
        world.outside.webhooks.secrets |= {
            "/" + address["to"].rpartition("/")[2]: address["secret"]
            for address in known["addresses"]
            if address["channel"] == "webhook"
        }


def _body(model: Any) -> Json:
    body: Json = model.model_dump(mode="json")
    return body


async def _put(world: World, path: str, body: Json) -> Json:
    return await world.call(ADMIN, "PUT", path, body)
