"""What becomes of every upstream MIR variant: executed, lowered, or refused by name with a reason. Nothing is dropped silently.

Two censuses: `SELF_HOSTED` (the 127 instruction variants and 9 terminators of the self-hosted MIR) and `RUST` (the seed compiler's). Facts about the
variants: upstream's generated schema and `inst_enum.rs`. `fate` is the one place that answers for a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["executed", "lowered", "refused"]


@dataclass(frozen=True, slots=True)
class Fate:
    """`executed`: `how` names our opcodes. `lowered`: `how` says what to write instead. `refused`: `how` is the reason."""

    variant: str
    status: Status
    how: str


SIMD = "SIMD is a later group"
GPU = "GPU code is a later group"
ASYNC = "async and actors are a later group"
HDL = "hardware description is a later group"
ASM = "inline assembly never reaches a compiler here"
TENSOR = "tensors and parallel operators are a later group"
TRANSFER = "ownership transfer between domains belongs to the later group of actors"
PROBE = "coverage probes must be lowered before MIR is executed"
UNITS = "physical units are checked by the front end"
PIPE = "function pipelines belong to the front end; call the functions"


def _executed(**fates: str) -> dict[str, Fate]:
    return {name: Fate(name, "executed", how) for name, how in fates.items()}


def _lowered(**fates: str) -> dict[str, Fate]:
    return {name: Fate(name, "lowered", how) for name, how in fates.items()}


def _refused(reason: str, names: str) -> dict[str, Fate]:
    return {name: Fate(name, "refused", reason) for name in names.split()}


SELF_HOSTED: dict[str, Fate] = {
    **_executed(
        Const="const", Copy="copy", Move="copy", BinOp="add sub mul div rem pow bit_and bit_or bit_xor shl shr eq ne lt le gt ge",
        CheckedBinOp="checked_add checked_sub checked_mul", UnaryOp="neg not bit_not", Cast="cast", Bitcast="bitcast", Alloc="alloc", Load="load",
        Store="store", GetElementPtr="gep", LoadGlobal="load_global", StoreGlobal="store_global", Aggregate="array tuple new variant",
        GetField="get_field", SetField="set_field", Call="call", CallIndirect="call_indirect", Drop="drop", DebugValue="debug_value", Nop="nop", Ref="ref",
    ),
    **_lowered(
        Intrinsic="print, len, min, max, abs, abort, assert, to_text, parse_int and the text and array operations have opcodes; other names are refused",
        ResultMatchSemantic="tag and switch over an enum",
    ),
    **_refused("the address of a global would outlive its checks; use places rooted at @name", "GlobalAddr"),
    **_refused(PROBE, "DecisionProbe ConditionProbe"),
    **_refused(TRANSFER, "TransferOut TransferIn FreezeRegion AcquireSnapshot CommitUpdates"),
    **_refused(PIPE, "PipeForward Compose Parallel LayerConnect"),
    **_refused(ASYNC, "CreatePromise Await Yield Spawn Send Receive"),
    **_refused(ASM, "InlineAsm"),
    **_refused(GPU, "GpuKernelDef GpuLaunch GpuGlobalId GpuLocalId GpuBlockId GpuBlockDim GpuGridDim GpuBarrier GpuMemFence GpuSharedAlloc GpuAtomicOp "
                    "GpuAtomicCas HostGpuLaneBegin HostGpuLaneEnd"),
    **_refused(HDL, "VhdlProcess VhdlSignalAssign VhdlVarAssign VhdlPortMap VhdlResize VhdlSlice VhdlConcat"),
    **_refused(SIMD, "SimdAddF32x4 SimdSubF32x4 SimdMulF32x4 SimdDivF32x4 SimdAddF32x8 SimdSubF32x8 SimdMulF32x8 SimdDivF32x8 SimdAddF64x4 SimdSubF64x4 "
                     "SimdMulF64x4 SimdDivF64x4 SimdFmaF32x4 SimdFmaF32x8 SimdFmaF64x4 SimdAddI32x4 SimdSubI32x4 SimdMulI32x4 SimdXorI32x4 SimdAndI32x4 "
                     "SimdOrI32x4 SimdShlI32x4 SimdShrI32x4 SimdAddI32x8 SimdSubI32x8 SimdMulI32x8 SimdXorI32x8 SimdAndI32x8 SimdOrI32x8 SimdShlI32x8 "
                     "SimdShrI32x8 SimdHaddF32x4 SimdHmaxF32x4 SimdHminF32x4 ScalableVecFence MirSimdSplat MirSimdLoad MirSimdStore MirSimdGather "
                     "MirSimdScatter MirSimdBinop MirSimdCmp MirSimdMaskOp MirSimdTernop MirSimdUnop MirSimdReduce MirSimdShuffle MirSimdPermute "
                     "MirSimdSelect MirSimdScalableVsetvl MaskFromCmp MaskedAdd MaskedMul MaskedFma PredicatedAdd PredicatedMul PredicatedFma"),
    **_refused(GPU, "MirWarpShfl MirWarpReduce MirWarpBallot MirWarpActivesMask MirWarpSync"),
}  # fmt: skip

SELF_HOSTED_TERMINATORS: dict[str, Fate] = _executed(
    Goto="goto", Ret="ret", If="if", Switch="switch", Unreachable="unreachable", Abort="abort", CallTerminator="invoke", Throw="throw", Resume="resume"
)

SELF_HOSTED_BINARY: dict[str, Fate] = {
    **_executed(Add="add", Sub="sub", Mul="mul", Div="div", Rem="rem", Pow="pow", BitAnd="bit_and", BitOr="bit_or", BitXor="bit_xor", Shl="shl",
                Shr="shr", Eq="eq", Ne="ne", Lt="lt", Le="le", Gt="gt", Ge="ge"),
    **_lowered(Offset="gep"),
    **_refused(TENSOR, "MatMul BroadcastAdd BroadcastSub BroadcastMul BroadcastDiv BroadcastPow Transpose"),
}  # fmt: skip

RUST: dict[str, Fate] = {
    **_executed(
        ConstInt="const", ConstFloat="const", ConstBool="const", ConstString="const", Copy="copy", AggregateCopy="aggregate_copy",
        BinOp="add sub mul div rem pow bit_and bit_or bit_xor shl shr eq ne lt le gt ge and or", UnaryOp="neg not bit_not", Cast="cast", Call="call",
        Load="load", Store="store", GlobalLoad="load_global", GlobalStore="store_global", GetElementPtr="gep", GcAlloc="alloc", Drop="drop",
        ArrayLit="array", TupleLit="tuple", IndexGet="index_get", IndexSet="index_set", SliceOp="slice", StructInit="new", FieldGet="get_field",
        FieldSet="set_field", ClosureCreate="closure", IndirectCall="call_indirect", MethodCallStatic="call", EnumDiscriminant="tag",
        EnumPayload="payload", EnumUnit="variant", EnumWith="variant", OptionSome="some", OptionNone="const nil",
    ),
    **_lowered(
        LocalAddr="locals are slots: read or assign them", EndScope="drop", PointerNew="ref", PointerRef="ref", PointerDeref="load",
        BoxInt="values are typed: no boxing", BoxFloat="values are typed: no boxing", UnboxInt="values are typed: no boxing",
        UnboxFloat="values are typed: no boxing", DictLit="dict, then index_set", Spread="concat", FStringFormat="to_text and concat",
        BuiltinMethod="len push pop insert remove slice concat contains keys values", PatternTest="tag, eq and switch",
        PatternBind="payload, get_field and index_get", ResultOk="variant of an enum", ResultErr="variant of an enum",
        TryUnwrap="tag and switch, or is_some and unwrap", ContractCheck="assert", ContractOldCapture="copy before the change",
        UnionDiscriminant="tag of an enum", UnionPayload="payload of an enum", UnionWrap="variant of an enum", ExternMethodCall="call of an extern",
    ),
    **_refused("symbols have no values here; use text or an enum", "ConstSymbol"),
    **_refused("there is no second interpreter to fall back to", "InterpCall InterpEval"),
    **_refused("virtual dispatch is resolved by the front end; use call_indirect", "MethodCallVirtual"),
    **_refused(ASM, "InlineAsm"),
    **_refused(ASYNC, "FutureCreate Await Wait ActorSpawn ActorSend ActorRecv ActorJoin ActorReply GeneratorCreate Yield GeneratorNext"),
    **_refused(PROBE, "DecisionProbe ConditionProbe PathProbe"),
    **_refused(UNITS, "UnitBoundCheck UnitWiden UnitNarrow UnitSaturate"),
    **_refused(SIMD, "VecLit VecSum VecProduct VecMin VecMax VecAll VecAny VecSqrt VecAbs VecFloor VecCeil VecRound VecRecip VecExtract VecWith VecShuffle "
                     "VecBlend VecSelect VecLoad VecStore VecGather VecScatter VecMaskedLoad VecMaskedStore VecFma VecMinVec VecMaxVec VecClamp NeighborLoad"),
    **_refused(GPU, "GpuGlobalId GpuLocalId GpuGroupId GpuGlobalSize GpuLocalSize GpuNumGroups GpuBarrier GpuMemFence GpuSharedAlloc GpuAtomic "
                    "GpuAtomicCmpXchg GpuLoadF64 GpuLoadI64 GpuStoreF64 GpuStoreI64"),
    **_refused(TENSOR, "ParMap ParReduce ParFilter ParForEach"),
}  # fmt: skip

RUST_TERMINATORS: dict[str, Fate] = _executed(Return="ret", Jump="goto", Branch="if", Switch="switch", Unreachable="unreachable")


def fate(variant: str) -> Fate | None:
    """Return what becomes of an upstream variant (self-hosted first), or None for a name that upstream never had."""
    for census in (SELF_HOSTED, SELF_HOSTED_TERMINATORS, SELF_HOSTED_BINARY, RUST, RUST_TERMINATORS):
        if variant in census:
            return census[variant]
    return None
