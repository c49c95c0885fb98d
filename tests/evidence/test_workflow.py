import json

import pytest

from fgsynth.evidence import workflow
from fgsynth.evidence.notebooks import executed
from fgsynth.evidence.workflow import Stage


def test_stages_are_those_of_the_locks_without_the_report(root):
    found = {stage.name: stage for stage in workflow.stages(root)}
    assert "report" not in found
    assert found["toy_2d"].command.startswith("python -m fgsynth run toy_2d")
    assert "requirements.lock" in found["imagenet_lt"].needs
    assert found["imagenet_lt"].makes["reports/mini/imagenet_lt"].endswith(".dir")


def test_a_stage_needs_those_that_make_its_files_or_the_folders_they_lie_in():
    made = Stage("a", "", (), {"out": "1", "other": "2"})
    below, same = Stage("b", "", ("out/file.csv",), {"b": "3"}), Stage("c", "", ("out",), {})
    apart = Stage("d", "", ("output", "b.csv"), {})
    stages = [made, below, same, apart]
    assert workflow.edges(stages) == [("a", "b"), ("a", "c")]


def test_boxes_stand_right_of_what_they_need_and_apart():
    stages = [
        Stage("b", "", ("a",), {"b": ""}),
        Stage("a", "", (), {"a": ""}),
        Stage("c", "", ("a", "b"), {}),
    ]
    drawn = workflow.drawn(stages)
    at = {box["name"]: (box["x"], box["y"]) for box in drawn["boxes"]}
    assert at["a"][0] < at["b"][0] < at["c"][0]
    assert len(set(at.values())) == 3
    assert len(drawn["arrows"]) == 3
    assert all(x1 < x2 <= drawn["width"] for x1, _, x2, _ in drawn["arrows"])
    assert workflow.drawn([])["boxes"] == []


@pytest.fixture(scope="module")
def graph(root):
    found = json.loads((root / "reports/ro-crate-metadata.json").read_text())["@graph"]
    return {entity["@id"]: entity for entity in found}


def test_every_reference_of_the_crate_is_in_it_and_every_file_is_there(graph, root):
    def references(value):
        if isinstance(value, dict):
            yield from [value["@id"]] if set(value) == {"@id"} else references(list(value.values()))
        elif isinstance(value, list):
            for one in value:
                yield from references(one)

    outside = {"https://w3id.org/ro/crate/1.1"}
    assert set(references(list(graph.values()))) <= set(graph) | outside
    data = [e for e in graph.values() if e["@type"] in ("File", "Dataset")]
    assert len(data) > 10
    assert all((root / "reports" / entity["@id"]).exists() for entity in data)
    assert {part["@id"] for part in graph["./"]["hasPart"]} == {e["@id"] for e in data} - {"./"}
    dates = [one.run["date"] for one in executed(root / "reports") if "date" in one.run]
    assert graph["./"].get("datePublished") == max(dates, default=None)


def test_every_run_is_an_action_with_what_it_made(graph, root):
    actions = [entity for entity in graph.values() if entity["@type"] == "CreateAction"]
    made = {part["@id"] for action in actions for part in action["result"]}
    for one in executed(root / "reports"):
        assert f"{one.scale}/{one.target}/" in made
        (action,) = [a for a in actions if {"@id": f"{one.scale}/{one.target}/"} in a["result"]]
        assert f"{one.run['seconds']} seconds" in action["description"]
        assert one.run["commit"] in action["description"]
