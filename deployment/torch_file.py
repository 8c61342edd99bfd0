"""Write a graph as PyTorch's own file, .pt2: a program, or one that is compiled for a machine."""

import io
import warnings
from copy import deepcopy
from pathlib import Path

import torch
from torch.export import ExportedProgram

from data.samples import InputError
from deployment.description import Description
from deployment.graph import ScoringGraph, expressing, traced
from utils.devices import DTYPES
from utils.files import written_aside


def check_compiler(device: str) -> None:
    """Raise InputError when what compiles for `device`, cpu or cuda, is not on this machine."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--compiled cuda: there is no CUDA device here")
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise InputError(
            "--compiled needs a C++ compiler: install g++, or name one in the variable CXX"
        ) from error


def write_torch(graph: ScoringGraph, description: Description, path: Path, _: object) -> None:
    """Write `graph` to `path`, whole or not at all, as described; nothing is pickled in it.

    A program, or, `compiled` for a kind of device, an AOTInductor package: machine code for
    processors such as this one.
    """
    graph = deepcopy(graph).to(memory_format=torch.channels_last)  # as `Scorer` has it
    for network in (graph.detector.teacher, *graph.detector.networks()):
        network.to(DTYPES[description.precision])
    with expressing("torch"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own ways
        program = without_unused(traced(graph))
        content = packed(program, description)
    with written_aside(path) as aside:
        aside.write_bytes(content)


def packed(program: ExportedProgram, description: Description) -> bytes:
    """Return a program, or what it is `compiled` to, as an archive with the description's texts."""
    from torch.export.passes import move_to_device_pass
    from torch.export.pt2_archive._package import package_pt2

    archive = io.BytesIO()  # a file's name would be in it
    if not description.compiled:
        program.example_inputs = None  # they would be pickled
        package_pt2(archive, exported_programs=program, extra_files=description.texts())
        return archive.getvalue()
    from torch._inductor import aot_compile
    from torch._inductor.utils import fresh_cache

    program = move_to_device_pass(program, description.compiled)
    images, named = program.example_inputs
    # without it, as many threads as this process has
    options = {"aot_inductor.package": True, "cpp.dynamic_threads": True}
    with fresh_cache(), torch.no_grad():  # what is compiled lies in a folder that goes
        files = aot_compile(program.module(check_guards=False), images, named, options=options)
        package_pt2(archive, aoti_files=files, extra_files=description.texts())
    return archive.getvalue()


def without_unused(program: ExportedProgram) -> ExportedProgram:
    """Take out of a program what no output needs, and where in which source file all is from.

    Unused are the sums that statistics are fitted by: a third of the file.
    """
    program.graph.eliminate_dead_code()
    unused = {n for n in program.graph.nodes if n.op == "placeholder" and not n.users}
    for node in program.graph.nodes:
        node.meta = {"val": node.meta["val"]} if "val" in node.meta else {}
    for node in unused:
        program.graph.erase_node(node)
    signature, names = program.graph_signature, {node.name for node in unused}
    for spec in signature.input_specs:
        if spec.arg.name in names:
            program.state_dict.pop(spec.target, None)
            program.constants.pop(spec.target, None)
    signature.input_specs = [s for s in signature.input_specs if s.arg.name not in names]
    program.graph_module.recompile()
    return program
