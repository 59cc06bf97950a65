"""Papers and codes that methods come from, found by what a method's ``source`` says: BibTeX, and licenses of the codes.

Entries hold what the papers' repositories print; what is not known there is left out. No code was copied from any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

CVPR = "IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)"
ICLR = "International Conference on Learning Representations (ICLR)"
ICML = "International Conference on Machine Learning (ICML)"
IJCV = "International Journal of Computer Vision (IJCV)"
KDD = "ACM SIGKDD Conference on Knowledge Discovery and Data Mining (KDD)"
COOP = "Zhou, Kaiyang and Yang, Jingkang and Loy, Chen Change and Liu, Ziwei"
YAO = "Yao, Hantao and Zhang, Rui and Xu, Changsheng"
NONE, UNKNOWN = "none", "not looked up"


class Paper(NamedTuple):
    """One entry.

    Attributes:
        key: of BibTeX.
        title: as printed.
        authors: joined by ``and``; empty where not known.
        venue: a journal if ``journal``, else a conference; empty for neither.
        eprint: number at arXiv.
    """

    key: str
    title: str
    authors: str
    venue: str
    year: int
    eprint: str = ""
    pages: str = ""
    url: str = ""
    journal: bool = False


PAPERS: Mapping[str, Paper] = {
    "arXiv 2605.11939": Paper(
        "cpt2026",
        "Cluster-Aware Neural Collapse Prompt Tuning for Long-Tailed Generalization of Vision-Language Models",
        "", CVPR, 2026, "2605.11939",
    ),
    "Radford et al. 2021": Paper(
        "radford2021clip", "Learning Transferable Visual Models From Natural Language Supervision",
        "Radford, Alec and Kim, Jong Wook and Hallacy, Chris and Ramesh, Aditya and Goh, Gabriel and Agarwal, Sandhini "
        "and Sastry, Girish and Askell, Amanda and Mishkin, Pamela and Clark, Jack and Krueger, Gretchen and "
        "Sutskever, Ilya", ICML, 2021, "2103.00020", "8748--8763",
    ),
    "Zhou et al., IJCV 2022": Paper(
        "zhou2022coop", "Learning to Prompt for Vision-Language Models", COOP, IJCV, 2022, "2109.01134", journal=True,
    ),
    "Zhou et al., CVPR 2022": Paper(
        "zhou2022cocoop", "Conditional Prompt Learning for Vision-Language Models", COOP, CVPR, 2022, "2203.05557",
    ),
    "Rasheed et al., CVPR 2023": Paper(
        "rasheed2023vificlip", "Fine-tuned CLIP Models are Efficient Video Learners",
        "Rasheed, Hanoona and Khattak, Muhammad Uzair and Maaz, Muhammad and Khan, Salman and Khan, Fahad Shahbaz",
        CVPR, 2023, "2212.03640",
    ),
    "Khattak et al., CVPR 2023": Paper(
        "khattak2023maple", "MaPLe: Multi-modal Prompt Learning",
        "Khattak, Muhammad Uzair and Rasheed, Hanoona and Maaz, Muhammad and Khan, Salman and Khan, Fahad Shahbaz",
        CVPR, 2023, "2210.03117",
    ),
    "Khattak et al., ICCV 2023": Paper(
        "khattak2023promptsrc", "Self-regulating Prompts: Foundational Model Adaptation without Forgetting",
        "Khattak, Muhammad Uzair and Wasim, Syed Talal and Naseer, Muzammal and Khan, Salman and Yang, Ming-Hsuan and "
        "Khan, Fahad Shahbaz", "IEEE/CVF International Conference on Computer Vision (ICCV)", 2023, "2307.06948",
    ),
    "Roy and Etemad, ICLR 2024": Paper(
        "roy2024coprompt", "Consistency-guided Prompt Learning for Vision-Language Models",
        "Roy, Shuvendu and Etemad, Ali", ICLR, 2024, "2306.01195",
    ),
    "Zhu et al., KDD 2024": Paper(
        "zhu2024npt", "Neural Collapse Anchored Prompt Tuning for Generalizable Vision-Language Models",
        "Zhu, Didi and others", KDD, 2024, "2306.15955", "4631--4640",
    ),
    "Yao et al., CVPR 2023": Paper(
        "yao2023kgcoop", "Visual-Language Prompt Tuning with Knowledge-guided Context Optimization",
        YAO, CVPR, 2023, pages="6757--6767",
    ),
    "Yao et al., CVPR 2024": Paper(
        "yao2024tcp", "TCP: Textual-based Class-aware Prompt tuning for Visual-Language Model",
        YAO, CVPR, 2024, "2311.18231", "23438--23448",
    ),
    "repo cnunlp/DeKg": Paper(
        "li2025dekg", "Divergence-enhanced Knowledge-guided Context Optimization for Visual-Language Prompt Tuning",
        "Li, Yilun and Cheng, Miaomiao and Han, Xu and Song, Wei", ICLR, 2025,
        url="https://openreview.net/forum?id=6wOmHdwCC4",
    ),
    "Li et al., CVPR 2025": Paper(
        "li2025dpc", "DPC: Dual-Prompt Collaboration for Tuning Vision-Language Models",
        "Li, Haoyang and Wang, Liang and Wang, Chao and Jiang, Jing and Peng, Yan and Long, Guodong",
        CVPR, 2025, "2503.13443", "25623--25632",
    ),
    "OpenReview amBzV6V3tQ": Paper(
        "lamp", "LAMP", "", "", 0, url="https://openreview.net/forum?id=amBzV6V3tQ",
    ),
    "Shi et al., ICML 2024": Paper(
        "shi2024lift", "Long-Tail Learning with Foundation Model: Heavy Fine-Tuning Hurts",
        "Shi, Jiang-Xin and Wei, Tong and Zhou, Zhi and Shao, Jie-Jing and Han, Xin-Yan and Li, Yu-Feng",
        ICML, 2024, "2309.10019",
    ),
    "Shi et al., KDD 2024": Paper(
        "shi2024candle", "Efficient and Long-Tailed Generalization for Pre-trained Vision-Language Model",
        "Shi, Jiang-Xin and Zhang, Chi and Wei, Tong and Li, Yu-Feng", KDD, 2024, "2406.12638", "2663--2673",
    ),
    "Yang et al., CVPR 2024": Paper(
        "yang2024mma", "MMA: Multi-Modal Adapter for Vision-Language Models",
        "Yang, Lingxiao and Zhang, Ru-Yuan and Wang, Yanchen and Xie, Xiaohua", CVPR, 2024, pages="23826--23837",
    ),
    "Guo and Gu, CVPR 2025": Paper(
        "guo2025mmrl", "MMRL: Multi-Modal Representation Learning for Vision-Language Models",
        "Guo, Yuncheng and Gu, Xiaodong", CVPR, 2025, "2503.08497",
    ),
    "Zanella and Ben Ayed, CVPRW 2024": Paper(
        "zanella2024cliplora", "Low-Rank Few-Shot Adaptation of Vision-Language Models",
        "Zanella, Maxime and Ben Ayed, Ismail", CVPR.replace("(CVPR)", "Workshops (CVPRW)"), 2024, "2405.18541",
    ),
    "Zhu et al., NeurIPS 2023": Paper(
        "zhu2023gla",
        "Generalized Logit Adjustment: Calibrating Fine-tuned Models by Removing Label Bias in Foundation Models",
        "Zhu, Beier and Tang, Kaihua and Sun, Qianru and Zhang, Hanwang",
        "Advances in Neural Information Processing Systems (NeurIPS)", 2023,
    ),
    "Silva-Rodríguez et al., CVPR 2024": Paper(
        "silvarodriguez2024clap", "A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models",
        "Silva-Rodr{\\'i}guez, Julio and Hajimiri, Sina and Ben Ayed, Ismail and Dolz, Jose", CVPR, 2024, "2312.12730",
    ),
    "Silva-Rodríguez et al., MICCAI 2025": Paper(
        "silvarodriguez2025sstext",
        "Few-Shot, Now for Real: Medical VLMs Adaptation without Balanced Sets or Validation",
        "Silva-Rodr{\\'i}guez, Julio and Shakeri, Fereshteh and Bahig, Houda and Dolz, Jose and Ben Ayed, Ismail",
        "Medical Image Computing and Computer Assisted Intervention (MICCAI)", 2025, "2506.17500", "237--247",
    ),
    "Yu et al., CVPR 2023": Paper(
        "yu2023taskres", "Task Residual for Tuning Vision-Language Models",
        "Yu, Tao and Lu, Zhihe and Jin, Xin and Chen, Zhibo and Wang, Xinchao", CVPR, 2023, pages="10899--10909",
    ),
    "Gao et al., IJCV 2024": Paper(
        "gao2024clipadapter", "CLIP-Adapter: Better Vision-Language Models with Feature Adapters",
        "Gao, Peng and Geng, Shijie and Zhang, Renrui and Ma, Teli and Fang, Rongyao and Zhang, Yongfeng and "
        "Li, Hongsheng and Qiao, Yu", IJCV, 2024, "2110.04544", journal=True,
    ),
    "Lin et al., CVPR 2023": Paper(
        "lin2023crossmodal", "Multimodality Helps Unimodality: Cross-Modal Few-Shot Learning with Multimodal Models",
        "Lin, Zhiqiu and Yu, Samuel and Kuang, Zhiyi and Pathak, Deepak and Ramanan, Deva", CVPR, 2023, "2301.06267",
    ),
    "Zhang et al., ECCV 2022": Paper(
        "zhang2022tipadapter", "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification",
        "Zhang, Renrui and Zhang, Wei and Fang, Rongyao and Gao, Peng and Li, Kunchang and Dai, Jifeng and "
        "Qiao, Yu and Li, Hongsheng", "European Conference on Computer Vision (ECCV)", 2022, "2207.09519", "493--510",
    ),
}  # fmt: skip
"""How sources call a paper, or the code of one: its entry."""

LICENSES: Mapping[str, str] = dict.fromkeys(
    ("KaiyangZhou/CoOp", "muzairkhattak/PromptSRC", "muzairkhattak/multimodal-prompt-learning", "ShuvenduRoy/CoPrompt",
     "jusiro/CLAP", "ZjjConan/VLM-MultiModalAdapter", "yunncheng/MMRL"), "MIT",
) | dict.fromkeys(
    ("cnunlp/DeKg", "JREion/DPC", "shijxcs/LIFT", "shijxcs/Candle", "MaxZanella/CLIP-LoRA", "BeierZhu/GLA",
     "htyao89/KgCoOp", "htyao89/Textual-based_Class-aware_prompt_tuning", "jusiro/SS-Text", "gaopengcuhk/Tip-Adapter",
     "asaxuc/PromptLT"), NONE,
)  # fmt: skip
"""Repository of a published code: its license, as seen there."""


def papers(source: str) -> list[Paper]:
    """Return the papers that a method's source names, in the order in which it does."""
    found = {name: source.find(name) for name in PAPERS}
    return [PAPERS[name] for name in sorted(found, key=found.__getitem__) if found[name] >= 0]


def bibtex(paper: Paper) -> str:
    """Return a paper as BibTeX."""
    kind, venue = ("article", "journal") if paper.journal else ("inproceedings", "booktitle")
    fields = {
        "title": paper.title,
        "author": paper.authors,
        venue: paper.venue,
        "pages": paper.pages,
        "year": str(paper.year or ""),
        "eprint": paper.eprint,
        "archivePrefix": "arXiv" if paper.eprint else "",
        "url": paper.url,
    }
    lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
    return f"@{kind if paper.venue else 'misc'}{{{paper.key},\n" + ",\n".join(lines) + "\n}\n"


def codes(source: str) -> dict[str, str]:
    """Return the repositories that a method's source names, with their licenses."""
    found = re.findall(r"repo ([\w.-]+/[\w.-]*\w)", source)
    return {repository: LICENSES.get(repository, UNKNOWN) for repository in found}


def bibliography(sources: Mapping[str, str]) -> str:
    """Return the papers that sources name as BibTeX, each once; a comment tells which of them name none.

    Args:
        sources: name of a method -> its source.
    """
    found = {paper.key: bibtex(paper) for source in sources.values() for paper in papers(source)}
    silent = [f"% {name}: no entry; source: {source}\n" for name, source in sources.items() if not papers(source)]
    return "\n".join([*found.values(), *(["".join(silent)] if silent else [])]).removesuffix("\n")
