"""Paths, whole and layer by layer."""

from __future__ import annotations

import pytest

from anarch_core.config.run_config import RunConfig
from anarch_core.config.stages import Stage, essential, last_network
from anarch_core.errors import ConfigError
from anarch_core.plugin.registry import get_registry


def test_a_path_is_a_list_of_stages():
    assert Stage.parse_path("lcn@10,efcn@500it,conv@80ep") == (Stage("lcn", "10"), Stage("efcn", "500it"), Stage("conv", "80ep"))
    assert RunConfig(path=["lcn@1", "efcn@2"]).stages == ((Stage("lcn", "1"),), (Stage("efcn", "2"),))


def test_a_stage_may_name_its_layers_as_the_setting_layers_does():
    assert Stage.parse_path("lcn[features.0]@10,lcn@40") == (Stage("lcn", "10", ("features.0",)), Stage("lcn", "40"))
    assert Stage.parse_path("tiled:2[conv1, conv2]@10") == (Stage("tiled:2", "10", ("conv1", "conv2")),)
    assert Stage.parse_path("lcn[*,!head]@1") == (Stage("lcn", "1", ("*", "!head")),)
    assert Stage.parse_path("lcn[features.[03]]@1,lcn@anarch@2") == (Stage("lcn", "1", ("features.[03]",)), Stage("lcn@anarch", "2"))
    assert RunConfig(path="lcn[a, b]@1").path == ("lcn[a,b]@1",)


@pytest.mark.parametrize("path", ["lcn", "lcn@", "@10", "lcn@soon", "conv@3", "lcn@3,lcn@4", "lcn@4,efcn@3", "lcn@4,efcn@4ep"])
def test_a_path_that_goes_nowhere_is_refused(path):
    with pytest.raises(ConfigError):
        RunConfig(path=path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("lcn[]@1", "brackets with an empty pattern; name layers, or leave the brackets out"),
        ("lcn[a,]@1", "empty pattern"),
        ("lcn[!]@1", "empty pattern"),
        ("[a]@1", "is not of the form relaxation@moment or relaxation\\[layers\\]@moment"),
        ("lcn[a@1", "is not of the form"),
        ("lcn a]@1", "is not of the form"),
        ("lcn[a]b@1", "is not of the form"),
        ("lcn[a]@1,lcn[a]@2", r"names 'lcn\[a\]' after 'lcn\[a\]', which changes nothing"),
        ("lcn@1,lcn[a]@2", r"names 'lcn\[a\]' after 'lcn', which changes nothing"),
        ("conv[a]@1", "starts with 'conv', which the trunk already is"),
    ],
)
def test_brackets_that_mean_nothing_are_refused(path, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig(path=path)


@pytest.mark.parametrize(
    ("label", "last"),
    [
        ("lcn", "lcn"),
        ("lcn>efcn", "efcn"),
        ("lcn[a]>lcn", "lcn"),
        ("lcn[a]>efcn[b]", "lcn[a]>efcn[b]"),
        ("lcn[a]>efcn[a]", "efcn[a]"),
        ("lcn[a]>efcn[b]>conv[a]", "lcn[a]>efcn[b]>conv[a]"),
        ("lcn>conv", ""),
        ("lcn>conv>tiled:2[a,b]", "tiled:2[a,b]"),
        ("ungroup>lcn", "ungroup>lcn"),
        ("lcn[a]>ungroup[b]>lcn>efcn", "lcn[a]>ungroup[b]>efcn"),
        ("untie>lcn[a]>efcn[a]", "untie>efcn[a]"),
        ("grow:5>grow:7", "grow:5>grow:7"),
        ("ungroup>lcn>conv>efcn", "efcn"),
        ("ungroup>lcn>conv", ""),
        ("of-a-plugin-that-is-not-here>lcn>efcn", "of-a-plugin-that-is-not-here>efcn"),
    ],
)
def test_the_network_at_the_end_of_a_path_is_made_by_the_stages_that_no_later_one_covers(label, last):
    assert last_network(label, get_registry()) == last


def test_a_projection_of_all_layers_leaves_nothing_to_do():
    assert essential(Stage.parse_path("lcn[a]@1,efcn@2,conv@3"), get_registry()) == ()
